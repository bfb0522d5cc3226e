import { UserError } from '../errors.js';
import { stream } from '../random.js';
import { weightedRocAuc, type WeightedStatistic } from './ranking.js';

/** An estimate with its bootstrap confidence interval. */
export interface Interval {
  estimate: number;
  low: number;
  high: number;
  /** Coverage asked for, for example 0.95. */
  level: number;
  /** Rows that were resampled. */
  rows: number;
}

export interface BootstrapOptions {
  seed?: number;
  /** Default 2,000. */
  resamples?: number;
  /** Default 0.95. */
  level?: number;
}

/**
 * Percentile bootstrap (Efron 1979): draws `rows` rows with replacement, evaluates the statistic under the drawn
 * multiplicities, and takes the quantiles (1 ± level)/2, interpolated. Resamples where the statistic is undefined are
 * left out. The same seed gives the same interval.
 *
 * @throws UserError without rows, or when the statistic is undefined on the rows themselves
 */
export function bootstrapInterval(
  rows: number,
  statistic: WeightedStatistic,
  { seed = 0, resamples = 2000, level = 0.95 }: BootstrapOptions = {},
): Interval {
  const estimate = rows === 0 ? null : statistic();
  if (estimate === null) {
    throw new UserError({
      code: 'evaluation.no-interval',
      message: `a confidence interval over ${rows} rows is undefined`,
      fix: 'evaluate on at least one row, and on rows of both labels where a ROC AUC is asked for',
    });
  }
  const random = stream(seed, 'bootstrap');
  const weights = new Float64Array(rows);
  const drawn: number[] = [];
  for (let resample = 0; resample < resamples; resample += 1) {
    weights.fill(0);
    for (let i = 0; i < rows; i += 1) weights[Math.floor((random.uint32() / 2 ** 32) * rows)]! += 1;
    const value = statistic(weights);
    if (value !== null) drawn.push(value);
  }
  drawn.sort((a, b) => a - b);
  return {
    estimate,
    low: quantile(drawn, (1 - level) / 2) ?? estimate,
    high: quantile(drawn, (1 + level) / 2) ?? estimate,
    level,
    rows,
  };
}

/** Interval of a mean. */
export function meanInterval(values: ArrayLike<number>, options?: BootstrapOptions): Interval {
  return bootstrapInterval(values.length, (weights) => weightedMean(values, weights), options);
}

/**
 * Interval of the mean of `after[i] − before[i]`; pairs are resampled whole, so that what a pair shares (its prompt)
 * cancels.
 *
 * @throws UserError when the two differ in length
 */
export function pairedDifferenceInterval(
  before: ArrayLike<number>,
  after: ArrayLike<number>,
  options?: BootstrapOptions,
): Interval {
  checkPaired(before.length, after.length);
  const differences = Float64Array.from(before, (value, i) => after[i]! - value);
  return meanInterval(differences, options);
}

/** Interval of ROC AUC of `scores` minus that of `otherScores` on the same rows. */
export function aucDifferenceInterval(
  labels: ArrayLike<number>,
  otherScores: ArrayLike<number>,
  scores: ArrayLike<number>,
  options?: BootstrapOptions,
): Interval {
  checkPaired(otherScores.length, scores.length);
  const other = weightedRocAuc(labels, otherScores);
  const own = weightedRocAuc(labels, scores);
  return bootstrapInterval(
    labels.length,
    (weights) => {
      const [a, b] = [other(weights), own(weights)];
      return a === null || b === null ? null : b - a;
    },
    options,
  );
}

/** Mean under weights; null when they sum to 0. */
export function weightedMean(values: ArrayLike<number>, weights?: ArrayLike<number>): number | null {
  let sum = 0;
  let total = 0;
  for (let i = 0; i < values.length; i += 1) {
    const weight = weights === undefined ? 1 : weights[i]!;
    sum += weight * values[i]!;
    total += weight;
  }
  return total === 0 ? null : sum / total;
}

export function checkPaired(before: number, after: number): void {
  if (before !== after) {
    throw new UserError({
      code: 'evaluation.not-paired',
      message: `a paired comparison has ${before} values on one side and ${after} on the other`,
      fix: 'score both models on the same prompts, in the same order',
    });
  }
}

/** Quantile of sorted values, linear between order statistics; undefined without values. */
function quantile(sorted: readonly number[], q: number): number | undefined {
  if (sorted.length === 0) return undefined;
  const position = q * (sorted.length - 1);
  const below = Math.floor(position);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low + (position - below) * (high - low);
}
