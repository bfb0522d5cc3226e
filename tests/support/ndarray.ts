import { elementCount } from '../../src/graph/tensor.js';

/** A dense row-major array of numbers in float64, for loops that are written to be read, not to be fast. */
export interface NdArray {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** All indices of a shape in row-major order. */
export function* indices(shape: readonly number[]): Generator<number[]> {
  for (let flat = 0; flat < elementCount(shape); flat++) yield unravel(flat, shape);
}

/** The index of the element at a row-major position. */
export function unravel(flat: number, shape: readonly number[]): number[] {
  const index: number[] = [];
  for (let axis = shape.length - 1, rest = flat; axis >= 0; axis--) {
    index.unshift(rest % shape[axis]!);
    rest = Math.floor(rest / shape[axis]!);
  }
  return index;
}

const ravel = (index: readonly number[], shape: readonly number[]): number =>
  index.reduce((flat, position, axis) => flat * shape[axis]! + position, 0);

/** The array whose element at each index is `element(index)`. */
export const ndarray = (shape: readonly number[], element: (index: readonly number[]) => number): NdArray => ({
  shape,
  data: Float64Array.from(indices(shape), element),
});

export const at = (array: NdArray, index: readonly number[]): number => array.data[ravel(index, array.shape)]!;

/** The element that an index of the result of a broadcast reads: axes align from the last, and axes of 1 repeat. */
export function atBroadcast(array: NdArray, index: readonly number[]): number {
  const own = index.slice(index.length - array.shape.length);
  return at(
    array,
    own.map((position, axis) => (array.shape[axis] === 1 ? 0 : position)),
  );
}

/** The shape of a broadcast of arrays that are known to fit. */
export function broadcastShape(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, axis) =>
    shapes.map((shape) => shape[axis - rank + shape.length] ?? 1).reduce((a, b) => (a === 1 ? b : a)),
  );
}

export const sum = (values: Iterable<number>): number => {
  let total = 0;
  for (const value of values) total += value;
  return total;
};

/** 0, 1, …, count−1. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, position) => position);
