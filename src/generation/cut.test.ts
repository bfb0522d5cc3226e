import fc from 'fast-check';
import { expect, it } from 'vitest';
import { cutAtSum, kthLargest, type Cut } from './cut.js';

const emptyCut = (): Cut => ({ value: 0, ties: 0 });
// Multiples of 1/8, so that sums are exact in any order and ties are frequent.
const eighths = fc.array(
  fc.integer({ min: 1, max: 40 }).map((n) => n / 8),
  { minLength: 1, maxLength: 60 },
);

it('finds the k-th largest of any values, infinities and ties included', () => {
  const values = fc.float64Array({ noNaN: true, minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(fc.oneof(values, eighths), fc.nat(), (drawn, rank) => {
      const k = 1 + (rank % drawn.length);
      const expected = Float64Array.from(drawn).sort().at(-k)!;
      // −0 and 0 are equal.
      expect(kthLargest(Float64Array.from(drawn), drawn.length, k, emptyCut()) === expected).toBe(true);
    }),
  );
});

it('selects the fewest largest values that reach a sum', () => {
  fc.assert(
    fc.property(eighths, fc.integer({ min: 1, max: 3000 }), (values, eighth) => {
      const target = eighth / 8;
      const cut = emptyCut();
      cutAtSum(Float64Array.from(values), values.length, target, cut);

      const sorted = values.toSorted((a, b) => b - a);
      let sum = 0;
      let expected = 0;
      while (expected < sorted.length && sum < target) sum += sorted[expected++]!;
      expect(cut.value).toBe(sorted[expected - 1]);
      expect(values.filter((value) => value > cut.value).length + cut.ties).toBe(expected);
    }),
  );
});

it('looks at the first `count` values only', () => {
  const values = Float64Array.of(1, 3, 2, 100, 200);
  const cut = emptyCut();
  expect(kthLargest(values, 3, 1, cut)).toBe(3);
  cutAtSum(values, 3, 4, cut);
  expect(cut).toEqual({ value: 2, ties: 1 });
  expect([...values.subarray(3)]).toEqual([100, 200]);
});
