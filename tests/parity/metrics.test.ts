import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { classificationMetrics } from '../../src/evaluation/classification.js';
import { distinctN } from '../../src/evaluation/text-metrics.js';

const folder = new URL('../fixtures/golden/metrics/', import.meta.url);
const number = z.number();
const pair = z.tuple([number, number]);

const Classification = z.object({
  cases: z
    .array(
      z.object({
        name: z.string(),
        labels: z.array(number),
        scores: z.array(number),
        accuracy: number,
        precision: number,
        recall: number,
        f1: number,
        precision_per_class: pair,
        recall_per_class: pair,
        f1_per_class: pair,
        support: pair,
        f1_macro: number,
        confusion_matrix: z.tuple([pair, pair]),
        roc_auc: number.nullable(),
        average_precision: number.nullable(),
        log_loss: number,
        brier: number,
        ece_confidence_10: number,
        ece_positive_10: number,
        mcc: number,
        calibration_curve: z.object({ fraction_positive: z.array(number), mean_score: z.array(number) }).optional(),
      }),
    )
    .length(6),
});

const Distinct = z.object({
  texts: z.array(z.string()).min(1),
  distinct_1: number,
  distinct_2: number,
  distinct_3: number,
  per_text: z.array(z.object({ distinct_1: number, distinct_2: number })),
});

describe('classification metrics equal scikit-learn', () => {
  const { cases } = Classification.parse(read('classification.json'));

  it.each(cases)('$name', (expected) => {
    const got = classificationMetrics(expected.labels, expected.scores);

    close(
      {
        accuracy: got.accuracy,
        precision: got.precision,
        recall: got.recall,
        f1: got.f1,
        f1_macro: got.f1Macro,
        log_loss: got.logLoss,
        brier: got.brier,
        mcc: got.mcc,
      },
      expected,
      1e-12,
    );
    got.perClass.forEach((metrics, index) => {
      expect(Math.abs(metrics.precision - expected.precision_per_class[index]!)).toBeLessThanOrEqual(1e-12);
      expect(Math.abs(metrics.recall - expected.recall_per_class[index]!)).toBeLessThanOrEqual(1e-12);
      expect(Math.abs(metrics.f1 - expected.f1_per_class[index]!)).toBeLessThanOrEqual(1e-12);
      expect(metrics.support).toBe(expected.support[index]);
    });
    expect(got.confusion).toEqual(expected.confusion_matrix);
    close({ roc_auc: got.rocAuc }, expected, 1e-9);
    close({ average_precision: got.averagePrecision }, expected, 1e-12);
    close({ ece_confidence_10: got.ece, ece_positive_10: got.ecePositive }, expected, 1e-9);
    if (expected.calibration_curve !== undefined) {
      const filled = got.reliability.filter((bin) => bin.count > 0);
      const curve = expected.calibration_curve;
      expect(filled).toHaveLength(curve.mean_score.length);
      filled.forEach((bin, index) => {
        expect(Math.abs(bin.meanScore! - curve.mean_score[index]!)).toBeLessThanOrEqual(1e-12);
        expect(Math.abs(bin.fractionPositive! - curve.fraction_positive[index]!)).toBeLessThanOrEqual(1e-12);
      });
    }
  });
});

describe('distinct-n equals the recorded values', () => {
  const expected = Distinct.parse(read('distinct.json'));

  it('over the corpus', () => {
    close(
      {
        distinct_1: distinctN(expected.texts, 1),
        distinct_2: distinctN(expected.texts, 2),
        distinct_3: distinctN(expected.texts, 3),
      },
      expected,
      1e-12,
    );
  });

  it('for each text', () => {
    expect(expected.per_text).toHaveLength(expected.texts.length);
    expected.texts.forEach((text, index) => {
      close({ distinct_1: distinctN([text], 1), distinct_2: distinctN([text], 2) }, expected.per_text[index]!, 1e-12);
    });
  });
});

function read(name: string): unknown {
  return JSON.parse(readFileSync(new URL(name, folder), 'utf8'));
}

function close<K extends string>(
  got: Record<K, number | null>,
  expected: Record<NoInfer<K>, number | null>,
  tolerance: number,
): void {
  for (const key of Object.keys(got) as K[]) {
    const [a, b] = [got[key], expected[key]];
    if (a === null || b === null) expect(a, key).toBe(b);
    else expect(Math.abs(a - b), key).toBeLessThanOrEqual(tolerance);
  }
}
