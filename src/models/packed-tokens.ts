import { addDims, mulDims, sizeOf, type Dim } from '../graph/dim.js';
import type { Graph, Value } from '../graph/graph.js';
import { wrap, type Tensor } from '../graph/tensor.js';
import type { ModelContext } from '../nn/context.js';
import { add, concat, iota, less, mul, rearrangeRows, reshape, slice, where } from '../ops/build.js';

/**
 * B sequences, S tokens together, one after the other: what treats each token by itself computes nothing for padding.
 * Attention alone sees them as rows of one length T.
 */
export interface PackedTokens {
  /** int32 (S). */
  readonly inputIds: Value;
  /** int32 (S), counted from the start of each sequence. */
  readonly positionIds: Value;
  /** int32 (B, T): which token stands at each place of a row; −1 behind the last one. */
  readonly tokenAt: Value;
  /** int32 (S): the place of each token in the flattened (B·T). */
  readonly placeOf: Value;
}

/** Declares the feeds of `packedFeeds`, and has the sequences as often as the context asks for copies of the batch. */
export function packedTokens({ graph, copies }: ModelContext): PackedTokens {
  const inputIds = graph.input('input_ids', 'int32', ['S']);
  const positionIds = graph.input('position_ids', 'int32', ['S']);
  const tokenAt = graph.input('token_at', 'int32', ['B', 'T']);
  const placeOf = graph.input('place_of', 'int32', ['S']);
  const present = less(-1, tokenAt);
  const times = (copyOf: (copy: number) => Value): Value =>
    concat(
      Array.from({ length: copies }, (_, copy) => copyOf(copy)),
      0,
    );
  return {
    inputIds: times(() => inputIds),
    positionIds: times(() => positionIds),
    tokenAt: times((copy) => (copy === 0 ? tokenAt : where(present, shifted(tokenAt, copy, 'S'), -1))),
    placeOf: times((copy) => shifted(placeOf, copy, mulDims('B', 'T'))),
  };
}

/** Numbers of tokens or places int32 in a copy of the batch: behind those of the copies before it, `size` of each. */
export function shifted(numbers: Value, copy: number, size: Dim): Value {
  return copy === 0 ? numbers : add(numbers, mul(sizeValue(numbers.graph, size), copy));
}

/** A dimension as int32 (1). */
const sizeValue = (graph: Graph, size: Dim): Value => slice(iota(graph, addDims(size, 1)), 0, size, addDims(size, 1));

/** x (S, …) → (B, T, …), zero where a row has no token. */
export const asRows = (x: Value, { tokenAt, placeOf }: PackedTokens): Value =>
  rearrangeRows(x, { from: tokenAt, to: placeOf, holes: 'from' });

/** x (B, T, …) → (S, …). */
export function asTokens(x: Value, { tokenAt, placeOf }: PackedTokens): Value {
  const places = sizeOf(tokenAt.shape);
  const flat = reshape(x, [places, ...x.shape.slice(2)]);
  return rearrangeRows(flat, { from: placeOf, to: reshape(tokenAt, [places]), holes: 'to' });
}

/** Values of the symbols of `packedTokens` for B sequences of T tokens each. */
export const packedSizes = (B: number, T: number): { B: number; T: number; S: number } => ({ B, T, S: B * T });

/** Feeds of `packedTokens`. Throws RangeError where a sequence is empty. */
export function packedFeeds(sequences: readonly (readonly number[])[]): Record<string, Tensor> {
  if (sequences.some(({ length }) => length === 0)) throw new RangeError('a sequence has no token');
  const length = sequences.reduce((longest, sequence) => Math.max(longest, sequence.length), 0);
  const tokens = sequences.reduce((total, sequence) => total + sequence.length, 0);
  const [inputIds, positions, placeOf] = [new Int32Array(tokens), new Int32Array(tokens), new Int32Array(tokens)];
  const tokenAt = new Int32Array(sequences.length * length).fill(-1);
  let token = 0;
  for (const [row, sequence] of sequences.entries()) {
    for (const [position, id] of sequence.entries()) {
      const place = row * length + position;
      inputIds[token] = id;
      positions[token] = position;
      placeOf[token] = place;
      tokenAt[place] = token++;
    }
  }
  return {
    input_ids: wrap('int32', [tokens], inputIds),
    position_ids: wrap('int32', [tokens], positions),
    token_at: wrap('int32', [sequences.length, length], tokenAt),
    place_of: wrap('int32', [tokens], placeOf),
  };
}

/** A sequence of which some tokens are learned or scored. */
export interface MaskedSequence {
  readonly inputIds: readonly number[];
  /** 1 where the token counts; the first token of a sequence, which nothing predicts, never does. */
  readonly completionMask: readonly (0 | 1)[];
}

/** Tokens that count, one after the other. */
export interface Predictions {
  /** Which token of all sequences predicts it: the one before. */
  readonly rows: number[];
  readonly targets: number[];
  /** The sequence that it belongs to. */
  readonly sequences: number[];
}

export function predictionsOf(sequences: readonly MaskedSequence[]): Predictions {
  const predictions: Predictions = { rows: [], targets: [], sequences: [] };
  let start = 0;
  for (const [sequence, { inputIds, completionMask }] of sequences.entries()) {
    for (let position = 1; position < inputIds.length; position++) {
      if (completionMask[position] !== 1) continue;
      predictions.rows.push(start + position - 1);
      predictions.targets.push(inputIds[position]!);
      predictions.sequences.push(sequence);
    }
    start += inputIds.length;
  }
  return predictions;
}
