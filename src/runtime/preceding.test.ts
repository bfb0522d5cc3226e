import fc from 'fast-check';
import { expect, it } from 'vitest';
import { isPrecededByLess } from './preceding.js';

it('is what all elements together say, whether or not it is known before the last one', async () => {
  const values = fc.constantFrom(0, 1, 2, 3, 5).chain((top) => fc.integer({ min: 0, max: top }));
  const rows = fc.array(values, { minLength: 1, maxLength: 40, size: 'max' });
  await fc.assert(
    fc.asyncProperty(
      rows,
      fc.integer({ min: 1, max: 400 }),
      fc.nat(),
      fc.nat(),
      async (pattern, times, seed, share) => {
        // Whole numbers, so that sums are exact in any order.
        const row = Float32Array.from({ length: pattern.length * times }, (_, i) => pattern[i % pattern.length]!);
        const place = seed % row.length;
        const value = row[place]!;
        const total = row.reduce((a, b) => a + b, 0);
        const mass = share % (total + 2);
        const before = row.reduce(
          (sum, other, i) => (other > value || (other === value && i < place) ? sum + other : sum),
          0,
        );
        const start = 7;
        const elements = async (from: number, count: number): Promise<Float32Array> =>
          Promise.resolve(row.subarray(from - start, from - start + count));
        const said = await isPrecededByLess({ start, place, value, mass, total }, row.length, elements);
        expect(said).toBe(before < mass);
      },
    ),
  );
});
