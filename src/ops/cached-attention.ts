import type { Dim } from '../graph/dim.js';
import type { Node } from '../graph/graph.js';
import type { Emitter, OpAttributes } from './record.js';

/** Where attention does not look: far below every score, and finite. */
const MASKED = -1e30;

const INT32 = 6;

/**
 * `groupQueryAttention` from plain ops, for devices whose fused one does not extend the cache in place. Every new value
 * of the cache reads the old one at its own place only, so both may be the same memory.
 */
export function composedAttention(
  emitter: Emitter,
  node: Node,
  { heads, kvHeads, scale }: OpAttributes['groupQueryAttention'],
): string[] {
  const [query, key, value, pastKey, pastValue, lastIndex, totalLength] = node.inputs.map((input) =>
    emitter.name(input),
  ) as [string, string, string, string, string, string, string];
  const [batch, length] = node.inputs[0]!.shape as [Dim, Dim, Dim];
  const [, , capacity, size] = node.inputs[3]!.shape as [Dim, Dim, Dim, Dim];
  const group = heads / kvHeads;
  const number = (at: number): string => emitter.constant('int32', [], [at]);
  const axes = (...at: number[]): string => emitter.constant('int64', [at.length], at);
  const reshaped = (x: string, ...dims: Dim[]): string => emitter.node('Reshape', [x, emitter.dims(dims)]);
  const int32 = (dim: Dim): string =>
    emitter.node('Cast', [emitter.node('Reshape', [emitter.dims([dim]), emitter.constant('int64', [0], [])])], {
      to: INT32,
    });
  const upTo = (dim: Dim): string => emitter.node('Range', [number(0), int32(dim), number(1)]);

  // The first new position of each row: 0 when the prompt enters, behind the row's other tokens afterwards; (B, 1).
  const steps = int32(length);
  const behind = emitter.node('Add', [emitter.node('Sub', [lastIndex, steps]), number(1)]);
  const isPrompt = emitter.node('Equal', [totalLength, steps]);
  const start = emitter.node('Unsqueeze', [emitter.node('Where', [isPrompt, number(0), behind]), axes(1)]);
  const slots = emitter.node('Unsqueeze', [upTo(capacity), axes(0)]);

  // Which new token a slot of the cache takes, (B, M); below 0 or from T on: none.
  const token = emitter.node('Sub', [slots, start]);
  const isBefore = emitter.node('Less', [token, number(0)]);
  const isAfter = emitter.node('GreaterOrEqual', [token, steps]);
  const last = emitter.node('Sub', [steps, number(1)]);
  const within = emitter.node('Where', [isAfter, last, emitter.node('Where', [isBefore, number(0), token])]);
  const everywhere = emitter.node('Expand', [
    emitter.node('Unsqueeze', [within, axes(1, 3)]),
    emitter.dims([batch, kvHeads, capacity, size]),
  ]);
  const [before, after] = [isBefore, isAfter].map((mask) => emitter.node('Unsqueeze', [mask, axes(1, 3)])) as [
    string,
    string,
  ];
  const extended = (fresh: string, past: string): string => {
    const byHead = emitter.node('Transpose', [reshaped(fresh, batch, length, kvHeads, size)], { perm: [0, 2, 1, 3] });
    const placed = emitter.node('GatherElements', [byHead, everywhere], { axis: 2 });
    return emitter.node('Where', [before, past, emitter.node('Where', [after, past, placed])]);
  };
  const [presentKey, presentValue] = [extended(key, pastKey), extended(value, pastValue)];

  // Scores (B, kvHeads, group, T, M): the heads of a group share their keys.
  const split = emitter.node('Transpose', [reshaped(query, batch, length, kvHeads, group, size)], {
    perm: [0, 2, 3, 1, 4],
  });
  const queries = emitter.node('Reshape', [split, emitter.dims([batch, kvHeads, -1, size])]);
  const products = emitter.node('MatMul', [queries, emitter.node('Transpose', [presentKey], { perm: [0, 1, 3, 2] })]);
  const scores = emitter.node('Mul', [
    reshaped(products, batch, kvHeads, group, length, capacity),
    emitter.constant('float32', [], [scale]),
  ]);
  const reach = emitter.node('Add', [start, emitter.node('Unsqueeze', [upTo(length), axes(0)])]);
  const isAhead = emitter.node('Greater', [
    emitter.node('Unsqueeze', [slots, axes(1)]),
    emitter.node('Unsqueeze', [reach, axes(2)]),
  ]);
  const hidden = emitter.node('Where', [
    emitter.node('Unsqueeze', [isAhead, axes(1, 2)]),
    emitter.constant('float32', [], [MASKED]),
    scores,
  ]);
  const weights = emitter.node('Softmax', [hidden], { axis: -1 });
  const mixed = emitter.node('MatMul', [
    emitter.node('Reshape', [weights, emitter.dims([batch, kvHeads, -1, capacity])]),
    presentValue,
  ]);
  const perHead = emitter.node('Transpose', [reshaped(mixed, batch, kvHeads, group, length, size)], {
    perm: [0, 3, 1, 2, 4],
  });
  return [emitter.node('Reshape', [perHead, emitter.dims(node.outputs[0]!.shape)]), presentKey, presentValue];
}
