import type { GrpoLossSettings } from '../../nn/grpo-loss.js';
import type { Metrics } from '../../training/loop.js';
import { learnedTokens, type RolloutSample } from './batch.js';

/**
 * TRL's metrics of one micro-batch, from its log-probabilities and entropies (one a learned token, completions one after
 * the other): `kl` after the bias correction, `entropy`, and how much of what was clipped. Token-level shares are means
 * over all tokens; `low_min` and `high_max` are over completions.
 */
export function lossMetrics(
  samples: readonly RolloutSample[],
  logProbs: ArrayLike<number>,
  entropies: ArrayLike<number>,
  settings: GrpoLossSettings,
): Metrics {
  const totals = { kl: 0, entropy: 0, low: 0, high: 0, tokens: 0 };
  const shares: { low: number; high: number }[] = [];
  let at = 0;
  for (const sample of samples) {
    const length = learnedTokens(sample);
    const ratios = logRatios(sample, logProbs, at, length, settings).map(Math.exp);
    const [low, high] = [
      ratios.filter((ratio) => isLow(ratio, sample, settings)).length,
      ratios.filter((ratio) => isHigh(ratio, sample, settings)).length,
    ];
    for (let t = 0; t < length; t++) {
      totals.entropy += entropies[at + t]!;
      if (sample.refLogProbs === undefined) continue;
      const difference = sample.refLogProbs[t]! - logProbs[at + t]!;
      const kl = Math.exp(difference) - difference - 1;
      totals.kl += settings.useBiasCorrectionKl ? kl * ratios[t]! : kl;
    }
    shares.push({ low: low / Math.max(length, 1), high: high / Math.max(length, 1) });
    totals.low += low;
    totals.high += high;
    totals.tokens += length;
    at += length;
  }
  const tokens = Math.max(totals.tokens, 1);
  // One ratio a completion: its share is 0 or 1, and the mean is over completions.
  const mean = (which: 'low' | 'high'): number =>
    settings.importanceSamplingLevel === 'token'
      ? totals[which] / tokens
      : shares.reduce((sum, share) => sum + share[which], 0) / Math.max(shares.length, 1);
  return {
    ...(settings.beta === 0 ? {} : { kl: totals.kl / tokens }),
    entropy: totals.entropy / tokens,
    'clip_ratio/low_mean': mean('low'),
    'clip_ratio/low_min': Math.min(...shares.map(({ low }) => low)),
    'clip_ratio/high_mean': mean('high'),
    'clip_ratio/high_max': Math.max(...shares.map(({ high }) => high)),
    'clip_ratio/region_mean': mean('low') + mean('high'),
  };
}

const isLow = (ratio: number, { advantage }: RolloutSample, { epsilonLow }: GrpoLossSettings): boolean =>
  ratio < 1 - epsilonLow && advantage < 0;
const isHigh = (ratio: number, { advantage }: RolloutSample, { epsilonHigh }: GrpoLossSettings): boolean =>
  ratio > 1 + epsilonHigh && advantage > 0;

/** The log of the ratio of each learned token; at sequence level all have their mean. */
function logRatios(
  sample: RolloutSample,
  logProbs: ArrayLike<number>,
  at: number,
  length: number,
  { importanceSamplingLevel }: GrpoLossSettings,
): number[] {
  const ratios = Array.from({ length }, (_, t) => logProbs[at + t]! - sample.oldLogProbs[t]!);
  if (importanceSamplingLevel === 'token' || length === 0) return ratios;
  const mean = ratios.reduce((a, b) => a + b, 0) / length;
  return ratios.map(() => mean);
}

/** TRL's metrics of the completions of a rollout: lengths in tokens, EOS included, and the share that was cut. */
export function completionMetrics(completions: readonly { ids: readonly number[]; terminated: boolean }[]): Metrics {
  const lengths = completions.map(({ ids }) => ids.length);
  const ended = completions.filter(({ terminated }) => terminated).map(({ ids }) => ids.length);
  const terminated = ended.length > 0 ? ended : [0];
  return {
    'completions/mean_length': mean(lengths),
    'completions/min_length': Math.min(...lengths),
    'completions/max_length': Math.max(...lengths),
    'completions/clipped_ratio': 1 - ended.length / completions.length,
    'completions/mean_terminated_length': mean(terminated),
    'completions/min_terminated_length': Math.min(...terminated),
    'completions/max_terminated_length': Math.max(...terminated),
  };
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
