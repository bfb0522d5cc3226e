import type { GammaWeight, GrpoLossSettings } from '../../nn/grpo/settings.js';
import type { Metrics } from '../../training/loop.js';
import { learnedTokens, type RolloutSample } from './batch.js';
import { correctionWeights } from './correction.js';

/** What the metrics need to know of one completion. */
interface Measured {
  readonly sample: RolloutSample;
  /** Ratio of each learned token; at sequence level one number. */
  readonly ratios: readonly number[];
  readonly logRatios: readonly number[];
}

/**
 * TRL's metrics of one batch, from its log-probabilities and entropies (one a learned token, completions one after the
 * other): `kl` after the bias correction, `entropy`, and by the loss type how much of what was clipped. Shares are means
 * over all tokens, or over completions where a completion has one ratio; `low_min` and `high_max` are over completions.
 */
export function lossMetrics(
  samples: readonly RolloutSample[],
  logProbs: ArrayLike<number>,
  entropies: ArrayLike<number>,
  settings: GrpoLossSettings,
): Metrics {
  const totals = { kl: 0, entropy: 0, tokens: 0 };
  const measured = samples.map((sample): Measured => {
    const at = totals.tokens;
    const length = learnedTokens(sample);
    const differences = Array.from({ length }, (_, t) => logProbs[at + t]! - sample.oldLogProbs[t]!);
    const ratios =
      settings.importanceSamplingLevel === 'token'
        ? differences.map(Math.exp)
        : [Math.exp(sum(differences) / Math.max(length, 1))];
    for (let t = 0; t < length; t++) {
      totals.entropy += entropies[at + t]!;
      if (sample.refLogProbs === undefined) continue;
      const kl = klOf(logProbs[at + t]! - sample.refLogProbs[t]!, settings);
      totals.kl += settings.useBiasCorrectionKl ? kl * (ratios[t] ?? ratios[0]!) : kl;
    }
    totals.tokens += length;
    return { sample, ratios, logRatios: differences };
  });
  const tokens = Math.max(totals.tokens, 1);
  return {
    ...(settings.beta === 0 ? {} : { kl: totals.kl / tokens }),
    entropy: totals.entropy / tokens,
    ...clipMetrics(measured, settings),
  };
}

/** How much the loss type held back. */
function clipMetrics(measured: readonly Measured[], settings: GrpoLossSettings): Metrics {
  const { lossType, epsilonLow, epsilonHigh, delta, vespo } = settings;
  switch (lossType) {
    case 'sapo':
      return {};
    case 'vespo':
      return {
        'vespo/phi_seq_mean': mean(
          measured.map(({ sample, logRatios }) => {
            const corrections = correctionWeights(sample, settings.rolloutCorrection);
            const logWeight = sum(logRatios.map((drift, t) => drift + Math.log(corrections[t]!)));
            return gammaWeight(logWeight, sample.advantage < 0 ? vespo.negative : vespo.positive);
          }),
        ),
      };
    case 'cispo':
      return {
        cispo_clip_ratio: shareOf(measured, (ratio, advantage) => ratio > epsilonHigh && advantage > 0).mean,
      };
    default: {
      const low = shareOf(measured, (ratio, advantage) => ratio < 1 - epsilonLow && advantage < 0);
      const high = shareOf(
        measured,
        (ratio, advantage) => Math.min(ratio, delta ?? Infinity) > 1 + epsilonHigh && advantage > 0,
      );
      return {
        'clip_ratio/low_mean': low.mean,
        'clip_ratio/low_min': low.shares.reduce((a, b) => Math.min(a, b), 1),
        'clip_ratio/high_mean': high.mean,
        'clip_ratio/high_max': high.shares.reduce((a, b) => Math.max(a, b), 0),
        'clip_ratio/region_mean': low.mean + high.mean,
      };
    }
  }
}

/** The share of ratios of which something holds, over all and in each completion that has any. */
function shareOf(
  measured: readonly Measured[],
  holds: (ratio: number, advantage: number) => boolean,
): { mean: number; shares: readonly number[] } {
  const hits = measured
    .filter(({ ratios }) => ratios.length > 0)
    .map(({ sample: { advantage }, ratios }) => ({
      hit: ratios.filter((ratio) => holds(ratio, advantage)).length,
      of: ratios.length,
    }));
  const of = sum(hits.map((each) => each.of));
  return {
    mean: sum(hits.map(({ hit }) => hit)) / Math.max(of, 1),
    shares: hits.length === 0 ? [0] : hits.map((each) => each.hit / each.of),
  };
}

/** KL(policy ‖ reference) from d = log-probability by the policy − by the reference. */
function klOf(d: number, { klEstimator }: GrpoLossSettings): number {
  if (klEstimator === 'k1') return d;
  return klEstimator === 'k2' ? (d * d) / 2 : Math.exp(-d) + d - 1;
}

/** φ(w) of a log-weight, which is kept from −∞ as in the loss. */
const gammaWeight = (logWeight: number, { k, lambda }: GammaWeight): number => {
  const bounded = Math.max(logWeight, Math.log(1e-8));
  return Math.exp(lambda + k * bounded - lambda * Math.exp(bounded));
};

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

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

const mean = (values: readonly number[]): number => sum(values) / values.length;
