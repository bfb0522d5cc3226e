import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { stream } from '../random.js';
import { aucDifferenceInterval, meanInterval, pairedDifferenceInterval } from './bootstrap.js';
import { splitGainByLength } from './length-split.js';

function normals(count: number, seed: number): number[] {
  const random = stream(seed);
  return Array.from({ length: count }, () => random.normal());
}

describe('meanInterval', () => {
  it('repeats with its seed and holds its estimate', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 1, maxLength: 30 }), (values) => {
        const interval = meanInterval(values, { seed: 9, resamples: 200 });
        expect(meanInterval(values, { seed: 9, resamples: 200 })).toEqual(interval);
        expect(interval.low).toBeLessThanOrEqual(interval.estimate + 1e-9);
        expect(interval.high).toBeGreaterThanOrEqual(interval.estimate - 1e-9);
      }),
      { numRuns: 50 },
    );
  });

  it('is as wide as the normal approximation on many rows', () => {
    const { low, high, estimate } = meanInterval(normals(400, 5), { seed: 1, resamples: 4000 });
    const half = 1.96 / Math.sqrt(400);
    expect(estimate - low).toBeCloseTo(half, 1);
    expect(high - low).toBeGreaterThan(2 * half * 0.85);
    expect(high - low).toBeLessThan(2 * half * 1.15);
  });

  it('covers the true mean about as often as it says', () => {
    let covered = 0;
    for (let trial = 0; trial < 200; trial += 1) {
      const { low, high } = meanInterval(normals(60, trial), { seed: trial, resamples: 300 });
      if (low <= 0 && high >= 0) covered += 1;
    }
    expect(covered).toBeGreaterThanOrEqual(180);
    expect(covered).toBeLessThanOrEqual(199);
  });

  it('is a point on one row, and refuses none', () => {
    expect(meanInterval([3])).toMatchObject({ estimate: 3, low: 3, high: 3, rows: 1 });
    expect(() => meanInterval([])).toThrow(UserError);
  });
});

describe('pairedDifferenceInterval', () => {
  it('lets what a pair shares cancel', () => {
    const prompts = normals(200, 2).map((x) => 10 * x);
    const after = normals(200, 3).map((x, i) => prompts[i]! + 0.5 + 0.1 * x);
    const interval = pairedDifferenceInterval(prompts, after);
    expect(interval.estimate).toBeCloseTo(0.5, 1);
    expect(interval.high - interval.low).toBeLessThan(0.06);
  });

  it('refuses sides of different length', () => {
    expect(() => pairedDifferenceInterval([1, 2], [1])).toThrow(/2 values on one side and 1/);
  });
});

describe('aucDifferenceInterval', () => {
  it('is exactly zero for the same scores, and refuses one class', () => {
    const labels = [0, 1, 0, 1, 1];
    const scores = [0.1, 0.9, 0.6, 0.4, 0.8];
    expect(aucDifferenceInterval(labels, scores, scores, { resamples: 50 })).toMatchObject({
      estimate: 0,
      low: 0,
      high: 0,
    });
    expect(() => aucDifferenceInterval([1, 1], [0, 1], [1, 0])).toThrow(UserError);
  });
});

describe('splitGainByLength', () => {
  const lengths = normals(300, 4).map((x) => 40 + 10 * x);

  it('gives length the whole gain when reward is a function of length', () => {
    const before = lengths.map((length) => ({ length, reward: 0.05 * length - 1 }));
    const after = lengths.map((length) => ({ length: length + 8, reward: 0.05 * (length + 8) - 1 }));
    const split = splitGainByLength(before, after, { resamples: 200 });
    expect(split.slope).toBeCloseTo(0.05, 10);
    expect(split.r2).toBeCloseTo(1, 10);
    expect(split.explainedByLength).toBeCloseTo(0.4, 10);
    expect(split.share).toBeCloseTo(1, 10);
    expect(split.rest.estimate).toBeCloseTo(0, 10);
  });

  it('gives length nothing when lengths stay', () => {
    const noise = normals(300, 6);
    const before = lengths.map((length, i) => ({ length, reward: 0.05 * length + noise[i]! }));
    const after = before.map(({ length, reward }) => ({ length, reward: reward + 1 }));
    const split = splitGainByLength(before, after, { resamples: 200 });
    expect(split.explainedByLength).toBe(0);
    expect(split.share).toBe(0);
    expect(split.rest.low).toBeCloseTo(1, 10);
  });

  it('states no share of a gain that may be none, and adds up', () => {
    const [a, b] = [normals(100, 7), normals(100, 8)];
    const before = a.map((reward, i) => ({ length: lengths[i]!, reward }));
    const after = b.map((reward, i) => ({ length: lengths[i]! + 1, reward }));
    const split = splitGainByLength(before, after, { resamples: 200 });
    expect(split.share).toBeNull();
    expect(split.explainedByLength + split.rest.estimate).toBeCloseTo(split.gain.estimate, 12);
  });

  it('takes a slope of 0 when all lengths before are equal', () => {
    const split = splitGainByLength([{ length: 5, reward: 1 }], [{ length: 9, reward: 2 }]);
    expect(split).toMatchObject({ slope: 0, r2: 0, explainedByLength: 0, share: 0 });
  });
});
