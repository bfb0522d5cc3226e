import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expectedCalibrationError, reliabilityBins } from './calibration.js';
import { classificationMetrics } from './classification.js';
import { averagePrecision, rocAuc, weightedRocAuc } from './ranking.js';

/** Rows with coarse scores, so that ties are common. */
const rows = fc.array(fc.record({ label: fc.integer({ min: 0, max: 1 }), score: fc.integer({ min: 0, max: 8 }) }), {
  minLength: 1,
  maxLength: 40,
});

const split = (drawn: readonly { label: number; score: number }[]) => ({
  labels: drawn.map(({ label }) => label),
  scores: drawn.map(({ score }) => score / 8),
});

/** Every pair of a positive and a negative, one by one. */
function bruteForceAuc(labels: readonly number[], scores: readonly number[]): number | null {
  let won = 0;
  let pairs = 0;
  labels.forEach((label, i) => {
    labels.forEach((other, j) => {
      if (label !== 1 || other !== 0) return;
      pairs += 1;
      won += scores[i]! > scores[j]! ? 1 : scores[i] === scores[j] ? 0.5 : 0;
    });
  });
  return pairs === 0 ? null : won / pairs;
}

describe('rocAuc', () => {
  it('is the share of pairs in the right order, ties counting half', () => {
    fc.assert(
      fc.property(rows, (drawn) => {
        const { labels, scores } = split(drawn);
        const expected = bruteForceAuc(labels, scores);
        const got = rocAuc(labels, scores);
        if (expected === null) expect(got).toBeNull();
        else expect(got).toBeCloseTo(expected, 12);
      }),
    );
  });

  it('depends on the order of scores only, and turns round with them', () => {
    fc.assert(
      fc.property(rows, (drawn) => {
        const { labels, scores } = split(drawn);
        const auc = rocAuc(labels, scores);
        fc.pre(auc !== null);
        expect(
          rocAuc(
            labels,
            scores.map((score) => Math.exp(3 * score) - 7),
          ),
        ).toBeCloseTo(auc, 12);
        expect(
          rocAuc(
            labels,
            scores.map((score) => -score),
          ),
        ).toBeCloseTo(1 - auc, 12);
      }),
    );
  });

  it('with integer weights equals repeated rows', () => {
    fc.assert(
      fc.property(
        rows,
        fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 40, maxLength: 40 }),
        (drawn, weights) => {
          const { labels, scores } = split(drawn);
          const repeated = split(drawn.flatMap((row, i) => Array.from({ length: weights[i]! }, () => row)));
          const expected = rocAuc(repeated.labels, repeated.scores);
          const got = weightedRocAuc(labels, scores)(weights);
          if (expected === null) expect(got).toBeNull();
          else expect(got).toBeCloseTo(expected, 12);
        },
      ),
    );
  });
});

describe('averagePrecision', () => {
  it('is the share of positives when all scores tie, and 1 for a perfect ranking', () => {
    expect(averagePrecision([1, 0, 0, 1, 0], [0.3, 0.3, 0.3, 0.3, 0.3])).toBeCloseTo(0.4, 12);
    expect(averagePrecision([0, 1, 1, 0], [0.1, 0.8, 0.9, 0.4])).toBe(1);
  });

  it('is null with one class', () => {
    expect(averagePrecision([1, 1], [0.1, 0.2])).toBeNull();
    expect(averagePrecision([0, 0], [0.1, 0.2])).toBeNull();
  });
});

describe('classificationMetrics', () => {
  it('does not depend on the order of rows', () => {
    fc.assert(
      fc.property(rows, (drawn) => {
        const { labels, scores } = split(drawn);
        const forward = classificationMetrics(labels, scores);
        const backward = classificationMetrics([...labels].reverse(), [...scores].reverse());
        expect(backward.confusion).toEqual(forward.confusion);
        expect(backward.f1).toBe(forward.f1);
        expect(backward.rocAuc).toEqual(forward.rocAuc);
        expect(backward.logLoss).toBeCloseTo(forward.logLoss, 10);
        expect(backward.ece).toBeCloseTo(forward.ece, 10);
      }),
    );
  });

  it('swaps the classes when labels and scores are turned round', () => {
    fc.assert(
      fc.property(rows, (drawn) => {
        const { labels, scores } = split(drawn.filter(({ score }) => score !== 4));
        fc.pre(labels.length > 0);
        const metrics = classificationMetrics(labels, scores);
        const turned = classificationMetrics(
          labels.map((label) => 1 - label),
          scores.map((score) => 1 - score),
        );
        expect(turned.perClass).toEqual([metrics.perClass[1], metrics.perClass[0]]);
        expect(turned.accuracy).toBe(metrics.accuracy);
        expect(turned.mcc).toBeCloseTo(metrics.mcc, 12);
        expect(turned.brier).toBeCloseTo(metrics.brier, 12);
      }),
    );
  });

  it('predicts 1 from the threshold on', () => {
    const metrics = classificationMetrics([1, 0, 1], [0.7, 0.7, 0.69], { threshold: 0.7 });
    expect(metrics.confusion).toEqual([
      [0, 1],
      [1, 1],
    ]);
  });

  it.each([
    ['no rows', [], [], 'evaluation.no-rows'],
    ['lengths that differ', [1, 0], [0.5], 'evaluation.length-mismatch'],
    ['a label that is not 0 or 1', [1, 2], [0.5, 0.5], 'evaluation.bad-label'],
    ['NaN', [1, 0], [0.5, NaN], 'evaluation.bad-score'],
    ['a logit', [1, 0], [0.5, 3.2], 'evaluation.bad-score'],
  ])('refuses %s', (_, labels, scores, code) => {
    expect(() => classificationMetrics(labels, scores)).toThrow(expect.objectContaining({ code }) as unknown);
  });
});

describe('reliabilityBins', () => {
  it('counts every row once, in a bin that holds its score', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1 }), (scores) => {
        const bins = reliabilityBins(new Uint8Array(scores.length), scores);
        expect(bins.reduce((sum, { count }) => sum + count, 0)).toBe(scores.length);
        for (const { low, high, meanScore } of bins) {
          if (meanScore === null) continue;
          expect(meanScore).toBeGreaterThanOrEqual(low - 1e-12);
          expect(meanScore).toBeLessThanOrEqual(high + 1e-12);
        }
      }),
    );
  });

  it('puts a score on a border below it', () => {
    const bins = reliabilityBins([1, 1, 1], [0, 0.1, 1]);
    expect(bins.map(({ count }) => count)).toEqual([2, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  });

  it('finds no calibration error where scores are the observed shares', () => {
    expect(
      expectedCalibrationError(
        reliabilityBins([1, 0, 0, 0, 1, 1, 1, 0], [0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75, 0.75]),
      ),
    ).toBe(0);
  });
});
