import { addDims, mulDims, subDims, type Dim } from '../graph/dim.js';
import type { Graph, Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import {
  add,
  cast,
  concat,
  equal,
  iota,
  less,
  matmul,
  mul,
  reshape,
  scalar,
  slice,
  softmax,
  transpose,
  where,
} from '../ops/build.js';
import type { ModelContext } from './context.js';

/** Far below any score, far above −∞: a row that may attend nowhere stays finite. */
const MASKED = -1e30;

/**
 * What each of `length` tokens may attend to, as a bias: 0 for those before it and itself, far below for those behind it,
 * (1, 1, 1, T, T). So no token attends to padding, which is on the right.
 */
export function causalBias(graph: Graph, length: Dim, dtype: DType): Value {
  const isAhead = less(
    reshape(iota(graph, length), [1, 1, 1, length, 1]),
    reshape(iota(graph, length), [1, 1, 1, 1, length]),
  );
  return where(isAhead, scalar(graph, dtype, MASKED), 0);
}

/** The same for encoders, whose tokens attend to all that are there: attentionMask int32 (B, T) → (B, 1, 1, T). */
export function paddingBias(attentionMask: Value, dtype: DType): Value {
  const [batch, length] = [attentionMask.shape[0]!, attentionMask.shape[1]!];
  const absent = cast(equal(reshape(attentionMask, [batch, 1, 1, length]), 0), dtype);
  return mul(absent, MASKED);
}

/**
 * Scaled dot-product attention with grouped queries (Ainslie et al., 2023): query (B, T, H, D), key and value
 * (B, T, K, D) with H a multiple of K, bias (1, 1, 1, T, T) → (B, T, H·D). Each key head serves H/K query heads, which
 * are stacked along time instead of copying the keys.
 */
export function groupedAttention(
  context: ModelContext,
  { query, key, value, bias }: { query: Value; key: Value; value: Value; bias: Value },
  dropout = 0,
): Value {
  const [batch, length, heads, size] = query.shape as [number | string, number | string, number, number];
  const kvHeads = key.shape[2] as number;
  const group = heads / kvHeads;
  const grouped = transpose(reshape(query, [batch, length, kvHeads, group, size]), [0, 2, 3, 1, 4]); // (B, K, G, T, D)
  const stacked = reshape(grouped, [batch, kvHeads, mulDims(group, length), size]);
  const keys = transpose(key, [0, 2, 1, 3]); // (B, K, T, D)
  const scores = matmul(mul(stacked, 1 / Math.sqrt(size)), keys, { transB: true }); // (B, K, G·T, T)
  const biased = add(reshape(scores, [batch, kvHeads, group, length, length]), bias);
  const weights = context.dropout(softmax(biased), dropout);
  const mixed = matmul(
    reshape(weights, [batch, kvHeads, mulDims(group, length), length]),
    transpose(value, [0, 2, 1, 3]),
  ); // (B, K, G·T, D)
  const apart = transpose(reshape(mixed, [batch, kvHeads, group, length, size]), [0, 3, 1, 2, 4]); // (B, T, K, G, D)
  return reshape(apart, [batch, length, heads * size]);
}

/**
 * What new tokens may attend to in a cache of M places, and among themselves, as biases: of the cache the first
 * `pastLength` int32 (B) places → (B, 1, 1, 1, M); of the new ones, each those before it and itself → (1, 1, 1, T, T).
 */
export function cacheBiases(
  pastLength: Value,
  capacity: Dim,
  length: Dim,
  dtype: DType,
): { past: Value; fresh: Value } {
  const { graph } = pastLength;
  const zero = scalar(graph, dtype, 0);
  const isThere = less(
    reshape(iota(graph, capacity), [1, 1, 1, 1, capacity]),
    reshape(pastLength, [pastLength.shape[0]!, 1, 1, 1, 1]),
  );
  return { past: where(isThere, zero, MASKED), fresh: causalBias(graph, length, dtype) };
}

/**
 * Attention of T new tokens over a cache and over themselves, with grouped queries as in `groupedAttention`: query
 * (B, T, H, D), key and value (B, T, K, D), past keys and values (B, K, M, D), biases of `cacheBiases` → (B, T, H·D), and
 * the new keys and values as a cache holds them, (B, K, T, D).
 */
export function cachedAttention(
  { query, key, value }: { query: Value; key: Value; value: Value },
  past: { readonly key: Value; readonly value: Value },
  biases: { readonly past: Value; readonly fresh: Value },
): { mixed: Value; key: Value; value: Value } {
  const [batch, length, heads, size] = query.shape as [Dim, Dim, number, number];
  const [, kvHeads, capacity] = past.key.shape as [Dim, number, Dim];
  const group = heads / kvHeads;
  const grouped = transpose(reshape(query, [batch, length, kvHeads, group, size]), [0, 2, 3, 1, 4]); // (B, K, G, T, D)
  const stacked = mul(reshape(grouped, [batch, kvHeads, mulDims(group, length), size]), 1 / Math.sqrt(size));
  const fresh = { key: transpose(key, [0, 2, 1, 3]), value: transpose(value, [0, 2, 1, 3]) }; // (B, K, T, D)
  const scores = (keys: Value, bias: Value, count: Dim): Value =>
    add(reshape(matmul(stacked, keys, { transB: true }), [batch, kvHeads, group, length, count]), bias);
  const all = concat([scores(past.key, biases.past, capacity), scores(fresh.key, biases.fresh, length)], -1);
  const weights = softmax(all); // (B, K, G, T, M + T)
  const mix = (values: Value, start: Dim, end: Dim): Value =>
    matmul(
      reshape(slice(weights, -1, start, end), [batch, kvHeads, mulDims(group, length), subDims(end, start)]),
      values,
    );
  const mixed = add(mix(past.value, 0, capacity), mix(fresh.value, capacity, addDims(capacity, length))); // (B, K, G·T, D)
  const apart = transpose(reshape(mixed, [batch, kvHeads, group, length, size]), [0, 3, 1, 2, 4]); // (B, T, K, G, D)
  return { mixed: reshape(apart, [batch, length, heads * size]), ...fresh };
}

/** (…, H·D) → (…, H, D) */
export const splitHeads = (x: Value, heads: number): Value =>
  reshape(x, [...x.shape.slice(0, -1), heads, (x.shape.at(-1) as number) / heads]);

/**
 * What each row has for the offsets of the columns from it, as a matrix of rows and columns: x (…, T, 2T) → y (…, T, T),
 * y[i, j] = x[i, T − 1 + j − i]; the last column of x is not used. Read with rows one shorter than they are, each row
 * begins one column earlier than the one above (Dai et al., 2019, https://arxiv.org/abs/1901.02860, appendix B): two
 * slices, where picking element by element would need an index of the size of y.
 */
export function relativeShift(x: Value): Value {
  const [outer, length] = [x.shape.slice(0, -2), x.shape.at(-2)!];
  const flat = reshape(x, [...outer, mulDims(mulDims(2, length), length)]);
  const shifted = slice(flat, -1, subDims(length, 1), subDims(mulDims(mulDims(2, length), length), 1));
  return slice(reshape(shifted, [...outer, length, subDims(mulDims(2, length), 1)]), -1, 0, length);
}
