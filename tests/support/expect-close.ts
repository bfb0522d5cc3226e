import { expect } from 'vitest';
import type { NdArray } from './ndarray.js';

/**
 * Expects the same shape, and each element within `tolerance` of the expected one, relative to the largest of the
 * expected magnitudes and 1.
 */
export function expectClose(actual: NdArray, expected: NdArray, tolerance: number, what: string): void {
  expect(actual.shape, `the shape of ${what}`).toEqual(expected.shape);
  const scale = expected.data.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1);
  const far = expected.data.findIndex(
    (value, position) => !(Math.abs(actual.data[position]! - value) <= tolerance * scale),
  );
  if (far < 0) return;
  expect.fail(
    `${what} is ${actual.data[far]!} where ${expected.data[far]!} is expected, at ${far} of (${expected.shape.join(', ')})`,
  );
}
