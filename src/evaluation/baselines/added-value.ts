import { aucDifferenceInterval, type Interval } from '../bootstrap.js';
import { stream } from '../../random.js';
import { rocAuc } from '../ranking.js';
import { fitLogisticRegression, predictProbabilities } from './logistic-regression.js';
import { fromColumns } from './sparse.js';

/** What a scorer adds for someone who already knows the prompt and the length. */
export interface AddedValue {
  /** ROC AUC from prompt score and length together. */
  aucWithout: number;
  /** ROC AUC from prompt score, length and the scorer together. */
  aucWith: number;
  /** aucWith − aucWithout. */
  difference: Interval;
}

export interface AddedValueInput {
  labels: ArrayLike<number>;
  /** P(label = 1) of the `prompt` baseline, fitted on other rows than these. */
  promptScores: ArrayLike<number>;
  /** Length of each text. */
  lengths: ArrayLike<number>;
  /** The scorer's probability, one a row. */
  scores: ArrayLike<number>;
  seed?: number;
  /** Parts of the cross-fit; default 5. */
  folds?: number;
  resamples?: number;
  signal?: AbortSignal | undefined;
}

/**
 * Compares two stacked logistic regressions, one of (logit of the prompt score, length, log length) and one that also sees the
 * scorer's logit. Both are cross-fitted: a row is scored by a model that was fitted without its fold, so an
 * uninformative scorer adds nothing but noise. The interval resamples rows and keeps the fits.
 *
 * Null when a label has fewer rows than there are folds.
 */
export async function addedValue(input: AddedValueInput): Promise<AddedValue | null> {
  const { labels, seed = 0, folds = 5, signal } = input;
  const rows = labels.length;
  const fold = stratifiedFolds(labels, folds, seed);
  if (fold === null) return null;
  const known = [
    standardised(input.promptScores, logit),
    standardised(input.lengths, (length) => length),
    standardised(input.lengths, Math.log1p),
  ];
  const scorer = standardised(input.scores, logit);
  const without = await crossFit(known, labels, fold, folds, signal);
  const withScorer = await crossFit([...known, scorer], labels, fold, folds, signal);
  return {
    aucWithout: rocAuc(labels, without)!,
    aucWith: rocAuc(labels, withScorer)!,
    difference: aucDifferenceInterval(labels, without, withScorer, {
      seed,
      resamples: input.resamples ?? (rows > 2000 ? 500 : 1000),
    }),
  };
}

/** P(label = 1) of each row by the model of the other folds. */
async function crossFit(
  columns: readonly Float64Array[],
  labels: ArrayLike<number>,
  fold: Uint8Array,
  folds: number,
  signal: AbortSignal | undefined,
): Promise<Float64Array> {
  const scores = new Float64Array(labels.length);
  for (let held = 0; held < folds; held += 1) {
    const inside = rowsWhere(fold, (f) => f === held);
    const outside = rowsWhere(fold, (f) => f !== held);
    const take = (rows: readonly number[]) => fromColumns(columns.map((column) => rows.map((row) => column[row]!)));
    const model = await fitLogisticRegression(
      take(outside),
      outside.map((row) => labels[row]!),
      { signal },
    );
    const predicted = predictProbabilities(model, take(inside));
    inside.forEach((row, i) => (scores[row] = predicted[i]!));
  }
  return scores;
}

/** A fold for each row, equally many of both labels in each; null when a label is rarer than the folds. */
function stratifiedFolds(labels: ArrayLike<number>, folds: number, seed: number): Uint8Array | null {
  const random = stream(seed, 'folds');
  const fold = new Uint8Array(labels.length);
  for (const label of [0, 1]) {
    const rows = rowsWhere(labels, (value) => value === label);
    if (rows.length < folds) return null;
    random.shuffle(rows.length).forEach((index, i) => (fold[rows[index]!] = i % folds));
  }
  return fold;
}

function rowsWhere(values: ArrayLike<number>, holds: (value: number) => boolean): number[] {
  return Array.from({ length: values.length }, (_, row) => row).filter((row) => holds(values[row]!));
}

/** transform(value), shifted and scaled to mean 0 and variance 1. */
function standardised(values: ArrayLike<number>, transform: (value: number) => number): Float64Array {
  const out = Float64Array.from(values, transform);
  const mean = out.reduce((sum, value) => sum + value, 0) / out.length;
  const deviation = Math.sqrt(out.reduce((sum, value) => sum + (value - mean) ** 2, 0) / out.length) || 1;
  return out.map((value) => (value - mean) / deviation);
}

function logit(probability: number): number {
  const clipped = Math.min(1 - 1e-6, Math.max(1e-6, probability));
  return Math.log(clipped / (1 - clipped));
}
