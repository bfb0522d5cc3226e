import { at, atBroadcast, broadcastShape, indices, ndarray, range, sum, type NdArray } from '../ndarray.js';

/** What each op computes, as plain float64 loops over its definition. */

/** erf by its everywhere-positive series 2/√π · e^(−x²) · Σ 2ⁿx²ⁿ⁺¹/(2n+1)!!, which loses no digits (|x| below 5). */
export function erf(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(total) && n < 200; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    total += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
}

export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

export const map = (f: (x: number) => number, x: NdArray): NdArray => ndarray(x.shape, (index) => f(at(x, index)));

export const broadcastMap = (f: (...values: number[]) => number, ...arrays: readonly NdArray[]): NdArray =>
  ndarray(broadcastShape(...arrays.map((array) => array.shape)), (index) =>
    f(...arrays.map((array) => atBroadcast(array, index))),
  );

const swapLast = (x: NdArray): NdArray =>
  ndarray([...x.shape.slice(0, -2), x.shape.at(-1)!, x.shape.at(-2)!], (index) =>
    at(x, [...index.slice(0, -2), index.at(-1)!, index.at(-2)!]),
  );

export function matmul(a: NdArray, b: NdArray, transA: boolean, transB: boolean): NdArray {
  const [left, right] = [transA ? swapLast(a) : a, transB ? swapLast(b) : b];
  const leading = broadcastShape(left.shape.slice(0, -2), right.shape.slice(0, -2));
  const inner = left.shape.at(-1)!;
  return ndarray([...leading, left.shape.at(-2)!, right.shape.at(-1)!], (index) => {
    const [outer, row, column] = [index.slice(0, -2), index.at(-2)!, index.at(-1)!];
    return sum(
      range(inner).map((k) => atBroadcast(left, [...outer, row, k]) * atBroadcast(right, [...outer, k, column])),
    );
  });
}

export function reduce(
  x: NdArray,
  axes: readonly number[],
  keepDims: boolean,
  combine: (values: readonly number[]) => number,
): NdArray {
  const kept = x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size));
  const group = x.shape.map((size, axis) => (axes.includes(axis) ? size : 1));
  const full = ndarray(kept, (index) =>
    combine(
      [...indices(group)].map((offset) =>
        at(
          x,
          index.map((position, axis) => position + offset[axis]!),
        ),
      ),
    ),
  );
  return keepDims ? full : { shape: x.shape.filter((_, axis) => !axes.includes(axis)), data: full.data };
}

export const cumulativeSum = (x: NdArray, axis: number, reverse: boolean): NdArray =>
  ndarray(x.shape, (index) => {
    const seen = range(x.shape[axis]!).filter((k) => (reverse ? k >= index[axis]! : k <= index[axis]!));
    return sum(seen.map((k) => at(x, index.with(axis, k))));
  });

/** Each vector along the last axis, mapped to one of the same length. */
export function mapRows(x: NdArray, f: (row: readonly number[]) => readonly number[]): NdArray {
  const width = x.shape.at(-1)!;
  const rows = range(x.data.length / width).map((row) => f([...x.data.subarray(row * width, (row + 1) * width)]));
  return { shape: x.shape, data: Float64Array.from(rows.flat()) };
}

export function logSoftmax(row: readonly number[]): number[] {
  const normaliser = Math.log(sum(row.map(Math.exp)));
  return row.map((value) => value - normaliser);
}

export const rmsNorm = (x: NdArray, weight: NdArray, epsilon: number): NdArray =>
  mapRows(x, (row) => {
    const rms = Math.sqrt(sum(row.map((value) => value * value)) / row.length + epsilon);
    return row.map((value, k) => (value / rms) * weight.data[k]!);
  });

export const layerNorm = (x: NdArray, weight: NdArray, bias: NdArray, epsilon: number): NdArray =>
  mapRows(x, (row) => {
    const mean = sum(row) / row.length;
    const deviation = Math.sqrt(sum(row.map((value) => (value - mean) ** 2)) / row.length + epsilon);
    return row.map((value, k) => ((value - mean) / deviation) * weight.data[k]! + bias.data[k]!);
  });

export const transpose = (x: NdArray, permutation: readonly number[]): NdArray =>
  ndarray(
    permutation.map((axis) => x.shape[axis]!),
    (index) =>
      at(
        x,
        x.shape.map((_, axis) => index[permutation.indexOf(axis)]!),
      ),
  );

export const broadcastTo = (x: NdArray, shape: readonly number[]): NdArray =>
  ndarray(shape, (index) => atBroadcast(x, index));

export function concat(arrays: readonly NdArray[], axis: number): NdArray {
  const shape = arrays[0]!.shape.with(axis, sum(arrays.map((array) => array.shape[axis]!)));
  return ndarray(shape, (index) => {
    let position = index[axis]!;
    for (const array of arrays) {
      if (position < array.shape[axis]!) return at(array, index.with(axis, position));
      position -= array.shape[axis]!;
    }
    throw new RangeError('the index is outside all parts');
  });
}

export const slice = (x: NdArray, axis: number, start: number, end: number): NdArray =>
  ndarray(x.shape.with(axis, end - start), (index) => at(x, index.with(axis, index[axis]! + start)));

export const pad = (x: NdArray, axis: number, before: number, after: number): NdArray =>
  ndarray(x.shape.with(axis, before + x.shape[axis]! + after), (index) => {
    const from = index[axis]! - before;
    return from >= 0 && from < x.shape[axis]! ? at(x, index.with(axis, from)) : 0;
  });

export function gatherRows(table: NdArray, rows: NdArray): NdArray {
  const depth = rows.shape.length;
  return ndarray([...rows.shape, ...table.shape.slice(1)], (index) =>
    at(table, [at(rows, index.slice(0, depth)), ...index.slice(depth)]),
  );
}

export function rearrangeRows(x: NdArray, from: NdArray): NdArray {
  const depth = from.shape.length;
  return ndarray([...from.shape, ...x.shape.slice(1)], (index) => {
    const row = at(from, index.slice(0, depth));
    return row < 0 ? 0 : at(x, [row, ...index.slice(depth)]);
  });
}

export const scatterAddRows = (updates: NdArray, rows: NdArray, count: number): NdArray =>
  ndarray([count, ...updates.shape.slice(1)], ([row, ...rest]) =>
    sum([...rows.data].map((target, k) => (target === row ? at(updates, [k, ...rest]) : 0))),
  );

export const gatherElements = (x: NdArray, picks: NdArray): NdArray =>
  ndarray(picks.shape, (index) => at(x, index.with(-1, at(picks, index))));

export const scatterAddElements = (updates: NdArray, targets: NdArray, size: number): NdArray =>
  ndarray(updates.shape.with(-1, size), (index) =>
    sum(
      range(updates.shape.at(-1)!).map((k) => {
        const from = index.with(-1, k);
        return at(targets, from) === index.at(-1) ? at(updates, from) : 0;
      }),
    ),
  );

/** The largest of each row; of equal ones those with lower indices. */
export function topK(x: NdArray, count: number): { values: NdArray; indices: NdArray } {
  const shape = x.shape.with(-1, count);
  const indices = ndarray(shape, (index) => {
    const valueAt = (k: number): number => at(x, index.with(-1, k));
    return range(x.shape.at(-1)!).sort((a, b) => valueAt(b) - valueAt(a) || a - b)[index.at(-1)!]!;
  });
  return { values: gatherElements(x, indices), indices };
}

export const tokenLogProbs = (logits: NdArray, ids: NdArray): NdArray => {
  const logProbs = mapRows(logits, logSoftmax);
  return ndarray(ids.shape, ([row]) => at(logProbs, [row!, ids.data[row!]!]));
};

export const tokenEntropies = (logits: NdArray): NdArray =>
  ndarray(logits.shape.slice(0, 1), ([row]) => {
    const logP = logSoftmax([...logits.data.subarray(row! * logits.shape[1]!, (row! + 1) * logits.shape[1]!)]);
    return -sum(logP.map((value) => Math.exp(value) * value));
  });

/** (onehot(id) − softmax(x)) · dlp */
export const tokenLogProbsGrad = (logits: NdArray, ids: NdArray, grad: NdArray): NdArray => {
  const logProbs = mapRows(logits, logSoftmax);
  return ndarray(logits.shape, ([row, column]) => {
    const chosen = ids.data[row!] === column ? 1 : 0;
    return (chosen - Math.exp(at(logProbs, [row!, column!]))) * grad.data[row!]!;
  });
};

export function rotary(x: NdArray, cosines: NdArray, sines: NdArray): NdArray {
  const half = x.shape.at(-1)! / 2;
  return ndarray(x.shape, (index) => {
    const position = index.at(-1)! % half;
    const angle = index.with(-1, position);
    const [first, second] = [at(x, angle), at(x, index.with(-1, position + half))];
    const [cos, sin] = [atBroadcast(cosines, angle), atBroadcast(sines, angle)];
    return index.at(-1)! < half ? first * cos - second * sin : second * cos + first * sin;
  });
}
