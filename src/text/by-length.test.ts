import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { partsByLength } from './by-length.js';

const lengths = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 24 });
const limits = fc.integer({ min: 1, max: 4000 });

const tokensOf = (of: readonly number[], part: readonly number[]): number =>
  part.length * Math.max(...part.map((position) => of[position]!));

describe('partsByLength', () => {
  it('has every sequence once, by length, and no part above the limits but of one sequence', () => {
    fc.assert(
      fc.property(lengths, limits, fc.integer({ min: 1, max: 24 }), (of, limit, most) => {
        const parts = partsByLength(of, limit, most);
        for (const part of parts) expect(part.length).toBeLessThanOrEqual(most);
        expect(parts.flat().sort((a, b) => a - b)).toEqual(of.map((_, position) => position));
        const inOrder = parts.flat().map((position) => of[position]!);
        expect(inOrder).toEqual([...inOrder].sort((a, b) => a - b));
        for (const part of parts) if (part.length > 1) expect(tokensOf(of, part)).toBeLessThanOrEqual(limit);
      }),
    );
  });

  it('never needs more tokens than the batch padded to its longest sequence', () => {
    fc.assert(
      fc.property(lengths, (of) => {
        const all = of.map((_, position) => position);
        const total = partsByLength(of, Infinity).reduce((sum, part) => sum + tokensOf(of, part), 0);
        expect(total).toBeLessThanOrEqual(tokensOf(of, all));
      }),
    );
  });

  it('leaves equal lengths together and takes apart what would be mostly padding', () => {
    expect(partsByLength([70, 70, 70, 70], Infinity)).toEqual([[0, 1, 2, 3]]);
    expect(partsByLength([300, 20, 310, 22], Infinity)).toEqual([
      [1, 3],
      [0, 2],
    ]);
    expect(partsByLength([300, 20, 310, 22], 400)).toEqual([[1, 3], [0], [2]]);
  });
});
