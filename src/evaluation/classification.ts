import { UserError } from '../errors.js';
import { expectedCalibrationError, reliabilityBins, type ReliabilityBin } from './calibration.js';
import { averagePrecision, rocAuc } from './ranking.js';

export interface ClassMetrics {
  precision: number;
  recall: number;
  f1: number;
  /** Rows whose true label is this class. */
  support: number;
}

/** Quality of scores for a binary label; `precision`, `recall` and `f1` are those of class 1. */
export interface ClassificationMetrics {
  rows: number;
  accuracy: number;
  precision: number;
  recall: number;
  f1: number;
  /** Mean of the two classes' F1. */
  f1Macro: number;
  /** Class 0, then class 1. */
  perClass: [ClassMetrics, ClassMetrics];
  /** Rows are the truth, columns the prediction: [[true 0, false 1], [false 0, true 1]]. */
  confusion: [[number, number], [number, number]];
  /** Null when only one class occurs. */
  rocAuc: number | null;
  /** Null when only one class occurs. */
  averagePrecision: number | null;
  /** Mean negative log-likelihood in nats, scores clipped to [1e-12, 1 − 1e-12]. */
  logLoss: number;
  /** Mean squared difference of score and label. */
  brier: number;
  /** Matthews correlation coefficient; 0 when a margin of the confusion matrix is empty. */
  mcc: number;
  /** Calibration error of the predicted class's confidence against being right. */
  ece: number;
  /** Calibration error of the score against the label. */
  ecePositive: number;
  /** Ten equal bins of the score against the label. */
  reliability: ReliabilityBin[];
}

/** Log loss clips scores to [margin, 1 − margin], so that a certain and wrong score costs 27.6 nats, not infinity. */
const LOG_LOSS_MARGIN = 1e-12;

/**
 * All figures of a binary classifier, defined as in scikit-learn; a ratio with an empty denominator is 0.
 *
 * @param labels one 0 or 1 a row
 * @param scores the probability of class 1, one a row; prediction is 1 from `threshold` on
 * @throws UserError when there are no rows, the lengths differ, a label is not 0 or 1, or a score is not in [0, 1]
 */
export function classificationMetrics(
  labels: ArrayLike<number>,
  scores: ArrayLike<number>,
  { threshold = 0.5 }: { threshold?: number } = {},
): ClassificationMetrics {
  checkRows(labels, scores);
  const rows = labels.length;
  const confusion: [[number, number], [number, number]] = [
    [0, 0],
    [0, 0],
  ];
  const hits = new Uint8Array(rows);
  const confidence = new Float64Array(rows);
  let logLoss = 0;
  let brier = 0;
  for (let row = 0; row < rows; row += 1) {
    const label = labels[row] === 1 ? 1 : 0;
    const score = scores[row]!;
    const predicted = score >= threshold ? 1 : 0;
    confusion[label][predicted] += 1;
    hits[row] = label === predicted ? 1 : 0;
    confidence[row] = predicted === 1 ? score : 1 - score;
    const clipped = Math.min(1 - LOG_LOSS_MARGIN, Math.max(LOG_LOSS_MARGIN, score));
    logLoss -= Math.log(label === 1 ? clipped : 1 - clipped) / rows;
    brier += (score - label) ** 2 / rows;
  }
  const [[trueZero, falseOne], [falseZero, trueOne]] = confusion;
  const zero = classMetrics(trueZero, falseZero, falseOne);
  const one = classMetrics(trueOne, falseOne, falseZero);
  const reliability = reliabilityBins(labels, scores);
  return {
    rows,
    accuracy: (trueZero + trueOne) / rows,
    precision: one.precision,
    recall: one.recall,
    f1: one.f1,
    f1Macro: (zero.f1 + one.f1) / 2,
    perClass: [zero, one],
    confusion,
    rocAuc: rocAuc(labels, scores),
    averagePrecision: averagePrecision(labels, scores),
    logLoss,
    brier,
    mcc: matthews(confusion),
    ece: expectedCalibrationError(reliabilityBins(hits, confidence)),
    ecePositive: expectedCalibrationError(reliability),
    reliability,
  };
}

function classMetrics(right: number, wronglyIn: number, wronglyOut: number): ClassMetrics {
  return {
    precision: ratio(right, right + wronglyIn),
    recall: ratio(right, right + wronglyOut),
    f1: ratio(2 * right, 2 * right + wronglyIn + wronglyOut),
    support: right + wronglyOut,
  };
}

function matthews([[trueZero, falseOne], [falseZero, trueOne]]: ClassificationMetrics['confusion']): number {
  const margins = [trueOne + falseOne, trueOne + falseZero, trueZero + falseOne, trueZero + falseZero];
  const scale = margins.reduce((product, margin) => product * Math.sqrt(margin), 1);
  return ratio(trueOne * trueZero - falseOne * falseZero, scale);
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}

function checkRows(labels: ArrayLike<number>, scores: ArrayLike<number>): void {
  if (labels.length === 0) {
    throw new UserError({
      code: 'evaluation.no-rows',
      message: 'there are no labelled rows to evaluate on',
      fix: 'give a validation or test set with at least one row',
    });
  }
  if (labels.length !== scores.length) {
    throw new UserError({
      code: 'evaluation.length-mismatch',
      message: `${labels.length} labels but ${scores.length} scores`,
      fix: 'give one score for each label',
    });
  }
  for (let row = 0; row < labels.length; row += 1) {
    if (labels[row] !== 0 && labels[row] !== 1) {
      throw new UserError({
        code: 'evaluation.bad-label',
        message: `label is ${String(labels[row])}, not 0 or 1`,
        where: `row ${row + 1}`,
      });
    }
    const score = scores[row]!;
    if (!(score >= 0 && score <= 1)) {
      throw new UserError({
        code: 'evaluation.bad-score',
        message: `score is ${score}, not a probability in [0, 1]`,
        where: `row ${row + 1}`,
        fix: 'pass logits through a softmax; NaN points to a diverged model',
      });
    }
  }
}
