import { bootstrapInterval, checkPaired, weightedMean, type BootstrapOptions, type Interval } from './bootstrap.js';

/** One scored text; `length` in characters or tokens, the same unit throughout. */
export interface ScoredLength {
  reward: number;
  length: number;
}

/** A reward gain, split into what longer (or shorter) texts would have earned anyway and the rest. */
export interface LengthSplit {
  /** Reward a unit of length, by least squares on the samples before. */
  slope: number;
  /** Share of the reward's variance before that length explains. */
  r2: number;
  meanLengthBefore: number;
  meanLengthAfter: number;
  /** Mean reward after − before. */
  gain: Interval;
  /** slope × (mean length after − mean length before). */
  explainedByLength: number;
  /** gain − explainedByLength, with the interval of the whole procedure (slope refitted in each resample). */
  rest: Interval;
  /**
   * explainedByLength / gain: negative when length changed against the gain, above 1 when length alone would have
   * gained more. Null when the interval of the gain holds 0, where a share says nothing.
   */
  share: number | null;
}

/**
 * How much of a reward gain length explains: on the samples *before*, fit reward ≈ a + slope × length by least squares;
 * explained = slope × change of the mean length. The fit is made before, because after training on the reward, length
 * and reward have moved together.
 *
 * `before[i]` and `after[i]` are answers to the same prompt; pairs are resampled whole. The slope is 0 where all
 * lengths before are equal.
 *
 * @throws UserError when there are no pairs or the two differ in length
 */
export function splitGainByLength(
  before: readonly ScoredLength[],
  after: readonly ScoredLength[],
  options?: BootstrapOptions,
): LengthSplit {
  checkPaired(before.length, after.length);
  const lengthBefore = before.map(({ length }) => length);
  const lengthAfter = after.map(({ length }) => length);
  const rewardBefore = before.map(({ reward }) => reward);
  const rewardGain = after.map(({ reward }, i) => reward - rewardBefore[i]!);
  const lengthGain = lengthAfter.map((length, i) => length - lengthBefore[i]!);

  const gain = bootstrapInterval(before.length, (weights) => weightedMean(rewardGain, weights), options);
  const rest = bootstrapInterval(
    before.length,
    (weights) => {
      const gained = weightedMean(rewardGain, weights);
      const lengthened = weightedMean(lengthGain, weights);
      if (gained === null || lengthened === null) return null;
      return gained - leastSquares(lengthBefore, rewardBefore, weights).slope * lengthened;
    },
    options,
  );
  const fit = leastSquares(lengthBefore, rewardBefore);
  const explainedByLength = fit.slope * weightedMean(lengthGain)!;
  return {
    ...fit,
    meanLengthBefore: weightedMean(lengthBefore)!,
    meanLengthAfter: weightedMean(lengthAfter)!,
    gain,
    explainedByLength,
    rest,
    share: gain.low <= 0 && gain.high >= 0 ? null : explainedByLength / gain.estimate,
  };
}

function leastSquares(
  x: readonly number[],
  y: readonly number[],
  weights?: ArrayLike<number>,
): { slope: number; r2: number } {
  const meanX = weightedMean(x, weights) ?? 0;
  const meanY = weightedMean(y, weights) ?? 0;
  let xx = 0;
  let xy = 0;
  let yy = 0;
  for (let i = 0; i < x.length; i += 1) {
    const weight = weights === undefined ? 1 : weights[i]!;
    xx += weight * (x[i]! - meanX) ** 2;
    xy += weight * (x[i]! - meanX) * (y[i]! - meanY);
    yy += weight * (y[i]! - meanY) ** 2;
  }
  return { slope: xx === 0 ? 0 : xy / xx, r2: xx === 0 || yy === 0 ? 0 : xy ** 2 / (xx * yy) };
}
