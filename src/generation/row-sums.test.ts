import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Preceding } from '../runtime/preceding.js';
import { filteredProbabilities } from './filtered-probabilities.js';
import { placeAt, RowSums } from './row-sums.js';
import { unfiltered } from './sampling-settings.js';

const LENGTH = 4;

/** Rows of whole blocks, with ties and tokens that cannot occur; the largest weight is 1. */
const rows = fc
  .array(fc.oneof(fc.float({ noNaN: true, min: -12, max: 0 }), fc.constantFrom(-3, -1, -0.5, 0, -Infinity)), {
    minLength: LENGTH,
    maxLength: 60,
  })
  .map((logits) => [0, ...logits].slice(0, Math.floor((logits.length + 1) / LENGTH) * LENGTH))
  .map((logits) => Float32Array.from(logits, Math.exp));
const topPs = fc.oneof(fc.constantFrom(0.95, 0.5), fc.double({ min: 0.01, max: 0.99, noNaN: true }));

function sumsOf(weights: Float32Array): RowSums {
  const blocks = Array.from({ length: weights.length / LENGTH }, (_, b) =>
    weights.subarray(b * LENGTH, (b + 1) * LENGTH),
  );
  return new RowSums(
    Float32Array.from(blocks, (block) => block.reduce((a, b) => a + b, 0)),
    Float32Array.from(blocks, (block) => block.reduce((a, b) => Math.max(a, b), 0)),
  );
}

/** Mass of the tokens before one in the order of top-p. */
const massBefore = (weights: Float32Array, token: number): number =>
  weights.reduce(
    (sum, other, at) => (other > weights[token]! || (other === weights[token] && at < token) ? sum + other : sum),
    0,
  );

describe('RowSums', () => {
  it('finds block and token where the cumulative sum passes a share', () => {
    fc.assert(
      fc.property(rows, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (weights, share) => {
        const sums = sumsOf(weights);
        const { block, rest } = sums.blockAt(share);
        const token = block * LENGTH + placeAt(weights.subarray(block * LENGTH, (block + 1) * LENGTH), rest);
        expect(weights[token]).toBeGreaterThan(0);
        const below = weights.subarray(0, token).reduce((a, b) => a + b, 0);
        const target = share * sums.total;
        expect(target).toBeGreaterThan(below - 1e-5 * sums.total);
        expect(target).toBeLessThan(below + weights[token]! + 1e-5 * sums.total);
      }),
    );
  });

  it('says of the nucleus what all weights say, or nothing', () => {
    fc.assert(
      fc.property(rows, topPs, fc.nat(), (weights, topP, seed) => {
        const token = seed % weights.length;
        const sums = sumsOf(weights);
        const mass = topP * sums.total;
        const said = sums.precededByLess(mass, { token, probability: weights[token]! });
        const before = massBefore(weights, token);
        if (said !== undefined && Math.abs(before - mass) > 1e-5 * sums.total) expect(said).toBe(before < mass);
      }),
    );
  });

  it('knows without the row that a token with more than 1 − p is in the nucleus', () => {
    const weights = Float32Array.of(1, 0.2, 0.2, 0.2, 0.9, 0.1, 0.1, 0.1);
    const sums = sumsOf(weights);
    expect(sums.precededByLess(0.7 * sums.total, { token: 4, probability: 0.9 })).toBe(true);
    expect(sums.precededByLess(0.3 * sums.total, { token: 1, probability: 0.2 })).toBe(false);
  });

  it('gives the blocks that the likeliest tokens lie in', () => {
    fc.assert(
      fc.property(rows, fc.integer({ min: 1, max: 20 }), (weights, k) => {
        const blocks = sumsOf(weights).largestBlocks(k);
        const lowest = weights.toSorted().at(-k) ?? 0;
        const kept = [...weights.keys()].filter((token) => weights[token]! >= lowest && weights[token]! > 0);
        for (const token of kept) expect(blocks).toContain(Math.floor(token / LENGTH));
      }),
    );
  });
});

describe('Preceding', () => {
  it('finds part by part what sorting the row finds', () => {
    fc.assert(
      fc.property(rows, topPs, fc.nat(), (weights, topP, seed) => {
        const token = seed % weights.length;
        if (weights[token] === 0) return;
        const total = weights.reduce((a, b) => a + b, 0);
        const preceding = new Preceding({ place: token, value: weights[token]!, mass: topP * total, total });
        let isLeft: boolean | undefined;
        for (let start = 0; start < weights.length && isLeft === undefined; start += LENGTH) {
          isLeft = preceding.take(weights.subarray(start, start + LENGTH), start);
        }
        const logits = Float64Array.from(weights, Math.log);
        const probabilities = filteredProbabilities(logits, { ...unfiltered, topP });
        const isNear = Math.abs(massBefore(weights, token) - topP * total) < 1e-9 * total;
        if (!isNear) expect(isLeft ?? preceding.decided).toBe(probabilities[token]! > 0);
      }),
    );
  });
});
