import { addSummedGradients } from '../autodiff/summed-gradients.js';
import type { Graph, Value } from '../graph/graph.js';
import { activationBytes, type Sizes } from './activations.js';
import { weightBytes } from './weights.js';

/** Bytes that an element takes in the files of a model. */
const STORED = { float32: 4, bfloat16: 2, float16: 2 } as const;
export type StoredAs = keyof typeof STORED;

/** What a compiled graph keeps, in bytes. */
export interface SessionBytes {
  /** Weights that are not fed, in the forms in which they are multiplied by. */
  readonly weights: number;
  /** Intermediate values of the largest run; the runtime never gives this memory back. */
  readonly activations: number;
}

/**
 * What the runtime's allocator takes for each byte in use: it gives a value any free block of up to twice its size.
 * Measured: see docs/memory.md.
 */
const ARENA = 1.2;

/**
 * A graph that only computes.
 *
 * @param runs the sizes of each kind of run
 * @param options.fed names of the weights that are kept by whoever feeds them
 * @param options.written outputs that are written into tensors that are there anyway
 * @param options.stored the dtype of the files
 */
export const inferenceSession = (
  graph: Graph,
  runs: readonly Sizes[],
  options: { readonly fed?: Iterable<string>; readonly written?: ReadonlySet<Value>; readonly stored?: StoredAs } = {},
): SessionBytes => ({
  weights: weightBytes(graph, new Set(options.fed), STORED[options.stored ?? 'float32']),
  activations: ARENA * Math.max(...runs.map((sizes) => activationBytes(graph, sizes, options.written))),
});

/** A graph with the gradients of `trainable`, which are fed and whose gradients are written where the optimizer has them. */
export function trainingSession(
  { graph, loss, trainable }: { graph: Graph; loss: Value; trainable: ReadonlyMap<string, Value> },
  sizes: Sizes,
  stored?: StoredAs,
): SessionBytes {
  const written = new Set(addSummedGradients(loss, trainable));
  return inferenceSession(graph, [sizes], {
    fed: trainable.keys(),
    written,
    ...(stored !== undefined && { stored }),
  });
}
