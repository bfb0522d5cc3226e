import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packBestFit } from './pack.js';

const lengthsAndCapacity = fc
  .integer({ min: 1, max: 60 })
  .chain((capacity) => fc.tuple(fc.array(fc.integer({ min: 1, max: capacity })), fc.constant(capacity)));

describe('packBestFit', () => {
  it('puts every sample into one pack, and none beyond its capacity', () => {
    fc.assert(
      fc.property(lengthsAndCapacity, ([lengths, capacity]) => {
        const packs = packBestFit(lengths, capacity);
        expect(packs.flat().sort((a, b) => a - b)).toEqual([...lengths.keys()]);
        for (const pack of packs) {
          expect(pack.reduce((total, i) => total + lengths[i]!, 0)).toBeLessThanOrEqual(capacity);
        }
      }),
    );
  });

  it('fills more than half of all packs but one: of two that are less full, one would have taken the other', () => {
    fc.assert(
      fc.property(lengthsAndCapacity, ([lengths, capacity]) => {
        const fills = packBestFit(lengths, capacity).map((pack) => pack.reduce((total, i) => total + lengths[i]!, 0));
        expect(fills.filter((fill) => 2 * fill <= capacity).length).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('takes the fullest pack that has room, and the earlier of two that are equally full', () => {
    expect(packBestFit([5, 6, 3, 4, 2], 10)).toEqual([
      [1, 3],
      [0, 2, 4],
    ]);
    expect(packBestFit([7, 7, 3, 3], 10)).toEqual([
      [0, 2],
      [1, 3],
    ]);
  });

  it('refuses a sample that is longer than a pack', () => {
    expect(() => packBestFit([3, 11], 10)).toThrow('a sample of 11 tokens does not fit into a pack of 10');
  });
});
