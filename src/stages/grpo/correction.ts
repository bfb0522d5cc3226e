import type { CorrectionSettings } from '../../nn/grpo/settings.js';
import type { Metrics } from '../../training/loop.js';

/** Log-probabilities of a completion's tokens, by the policy and by the sampler that drew them. */
interface Drawn {
  readonly oldLogProbs: readonly number[];
  readonly samplerLogProbs?: readonly number[];
}

/**
 * What each token counts for having been drawn by a sampler whose probabilities are not the policy's: policy / sampler,
 * of the token or of the whole completion, cut to the bounds (`truncate`; Yao et al., 2025,
 * https://fengyao.notion.site/off-policy-rl) or 0 beyond them (`mask`). Where nothing is
 * known of the sampler, tokens count 1.
 */
export function correctionWeights(sample: Drawn, settings: CorrectionSettings | undefined): number[] {
  if (settings === undefined || sample.samplerLogProbs === undefined) return sample.oldLogProbs.map(() => 1);
  const { mode, max, min } = settings;
  const [level, beyond] = mode.split('_') as ['token' | 'sequence', 'truncate' | 'mask'];
  const bound = (ratio: number): number => {
    const within = Math.min(Math.max(ratio, min ?? 0), max);
    return beyond === 'truncate' || within === ratio ? within : 0;
  };
  const differences = logDifferences(sample);
  if (level === 'token') return differences.map((difference) => bound(Math.exp(difference)));
  const ratio = bound(Math.exp(differences.reduce((a, b) => a + b, 0)));
  return differences.map(() => ratio);
}

/** TRL's measures of how far sampler and policy are apart; none where no completion says who drew it. */
export function correctionMetrics(samples: readonly Drawn[], settings: CorrectionSettings | undefined): Metrics {
  const known = samples.filter(({ samplerLogProbs }) => samplerLogProbs !== undefined);
  if (known.length === 0) return {};
  const differences = known.flatMap(logDifferences).map(Math.abs);
  const perSequence = settings?.mode.startsWith('sequence') === true;
  const ratios = known.flatMap((sample) => {
    const weights = correctionWeights(sample, settings);
    return perSequence ? weights.slice(0, 1) : weights;
  });
  return {
    'sampling/sampling_logp_difference/mean': mean(differences),
    'sampling/sampling_logp_difference/max': differences.reduce((a, b) => Math.max(a, b), 0),
    ...(settings === undefined
      ? {}
      : {
          'sampling/importance_sampling_ratio/min': ratios.reduce((a, b) => Math.min(a, b), Infinity),
          'sampling/importance_sampling_ratio/mean': mean(ratios),
          'sampling/importance_sampling_ratio/max': ratios.reduce((a, b) => Math.max(a, b), 0),
        }),
  };
}

const logDifferences = ({ oldLogProbs, samplerLogProbs }: Drawn): number[] =>
  oldLogProbs.map((old, t) => old - samplerLogProbs![t]!);

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;
