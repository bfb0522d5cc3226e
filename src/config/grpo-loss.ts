import { z } from 'zod';
import { key, refuse, type RefineContext } from './key.js';

export const LOSS_TYPES = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'sapo', 'vespo', 'luspo'] as const;
export type LossType = (typeof LOSS_TYPES)[number];

/** Loss types that clip the probability ratio from both sides. */
const CLIPPED: readonly LossType[] = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'luspo'];

export const KL_ESTIMATORS = ['k1', 'k2', 'k3'] as const;
export type KlEstimator = (typeof KL_ESTIMATORS)[number];

export const ROLLOUT_CORRECTIONS = [
  'none',
  'token_truncate',
  'token_mask',
  'sequence_truncate',
  'sequence_mask',
] as const;
export type RolloutCorrection = (typeof ROLLOUT_CORRECTIONS)[number];

const positive = () => z.number().gt(0);

/** What the policy loss is; docs/grpo.md has the formulas. */
export const lossKeys = {
  lossType: key(
    z.enum(LOSS_TYPES).default('dapo'),
    "Loss: grpo averages over completions, bnpo over a batch's tokens, dr_grpo by the longest length, dapo over a rollout's tokens; cispo, sapo, vespo and luspo weigh the ratio in other ways (docs/grpo.md).",
  ),
  importanceSamplingLevel: key(
    z.enum(['token', 'sequence']).default('token'),
    'Whether the probability ratio belongs to each token or to the whole completion.',
  ),
  epsilon: key(z.number().gt(0).lt(1).default(0.2), 'How far below 1 the probability ratio may move.'),
  epsilonHigh: key(
    positive().optional(),
    'How far above 1 the ratio may move, epsilon if not given; with cispo the largest ratio itself, 5 in its paper.',
  ),
  delta: key(
    positive().optional(),
    'Largest ratio where the advantage is negative, which plain clipping leaves unbounded; above 1 + epsilonHigh.',
  ),
  sapoTemperaturePos: key(positive().default(1), 'sapo: how sharply its gate closes for positive advantages.'),
  sapoTemperatureNeg: key(positive().default(1.05), 'sapo: the same for the other advantages.'),
  vespoKPos: key(z.number().min(0).default(2), 'vespo: power of a small ratio, advantages from 0 up.'),
  vespoLambdaPos: key(z.number().min(1e-4).default(3), 'vespo: decay with a large ratio, advantages from 0 up.'),
  vespoKNeg: key(z.number().min(0).default(3), 'vespo: power of a small ratio, negative advantages.'),
  vespoLambdaNeg: key(z.number().min(1e-4).default(2), 'vespo: decay with a large ratio, negative advantages.'),
  beta: key(z.number().min(0).default(0.05), 'Weight of the KL to the reference; 0 computes no reference.'),
  klEstimator: key(
    z.enum(KL_ESTIMATORS).default('k3'),
    'Estimate of the KL from one token: log ratio (k1), half its square (k2), or the unbiased one that is never negative (k3).',
  ),
  useBiasCorrectionKl: key(z.boolean().default(true), 'Multiply the KL by the probability ratio.'),
  maskTruncatedCompletions: key(z.boolean().default(false), 'Leave completions without EOS out of the loss.'),
  topEntropyQuantile: key(
    z.number().min(0).max(1).default(1),
    "Share of a batch's tokens, those of highest entropy, that the policy loss learns from; 1 learns from all.",
  ),
  offPolicyMaskThreshold: key(
    positive().optional(),
    'Leave out a completion of negative advantage whose mean log-probability has fallen by more than this, in nats.',
  ),
  rolloutCorrection: key(
    z.enum(ROLLOUT_CORRECTIONS).optional(),
    'How to weigh tokens that the sampler drew with other probabilities than the policy has, where it says which; sequence_mask if not given, token_mask with vespo.',
  ),
  rolloutCorrectionMax: key(positive().default(3), 'Largest such weight: truncate cuts it there, mask leaves out.'),
  rolloutCorrectionMin: key(positive().optional(), 'Smallest such weight; none if not given.'),
  entropyCoef: key(z.number().default(0), 'Weight of the mean entropy that is added as a bonus; 0 adds none.'),
  useAdaptiveEntropy: key(
    z.boolean().default(false),
    'Move entropyCoef after each step: up while the entropy is at most entropyTarget, else down.',
  ),
  entropyTarget: key(z.number().min(0).default(0.2), 'Entropy in nats a token, up to which the bonus acts.'),
  entropyCoefDelta: key(positive().default(0.005), 'How far entropyCoef moves in one step.'),
  entropyCoefMin: key(z.number().default(0), 'Least entropyCoef that it moves to.'),
  entropyCoefMax: key(z.number().default(1), 'Largest entropyCoef that it moves to.'),
};

type LossKeys = z.output<z.ZodObject<typeof lossKeys>>;

/** Refuses settings of the loss that contradict each other, and those that it would ignore. */
export function checkLoss(grpo: LossKeys, context: RefineContext): void {
  const { lossType, delta, rolloutCorrection, rolloutCorrectionMin: least, rolloutCorrectionMax: most } = grpo;
  if (delta !== undefined && !CLIPPED.includes(lossType)) {
    const fix = `leave delta out, or set lossType to one of ${CLIPPED.join(', ')}`;
    refuse(context, ['delta'], `is ${delta}, but ${lossType} has no two-sided clipping for it to bound`, fix);
  }
  if (grpo.beta > 0 && grpo.klEstimator === 'k1' && !grpo.useBiasCorrectionKl) {
    const message = 'is k1 without useBiasCorrectionKl: on average its gradient is zero, so beta would do nothing';
    refuse(context, ['klEstimator'], message, 'set useBiasCorrectionKl to true, or take k2 or k3');
  }
  if (lossType === 'vespo' && rolloutCorrection?.startsWith('sequence') === true) {
    const message = `is ${rolloutCorrection}, but vespo makes its own weight of the completion from its tokens`;
    refuse(context, ['rolloutCorrection'], message, 'set it to token_truncate, token_mask or none');
  }
  if (least !== undefined && least >= most) {
    const message = `is ${least}, not below rolloutCorrectionMax (${most})`;
    refuse(context, ['rolloutCorrectionMin'], message, 'lower it, or raise rolloutCorrectionMax');
  }
  if (grpo.entropyCoefMin > grpo.entropyCoefMax) {
    const message = `is ${grpo.entropyCoefMin}, above entropyCoefMax (${grpo.entropyCoefMax})`;
    refuse(context, ['entropyCoefMin'], message, 'lower it, or raise entropyCoefMax');
  }
}

/** Settings of the loss that are possible and probably not meant, each with what the papers have. */
export function lossWarnings(grpo: LossKeys): { code: string; message: string }[] {
  const { lossType, importanceSamplingLevel: level, epsilonHigh } = grpo;
  const warnings: { code: string; message: string }[] = [];
  if (lossType === 'luspo' && level === 'token') {
    const message = 'luspo is meant for one ratio a completion: set grpo.importanceSamplingLevel to sequence.';
    warnings.push({ code: 'grpo.luspo-level', message });
  }
  if (lossType === 'vespo' && level === 'sequence') {
    const message = 'vespo makes its own ratio of the completion: leave grpo.importanceSamplingLevel at token.';
    warnings.push({ code: 'grpo.vespo-level', message });
  }
  if (level === 'sequence' && ['bnpo', 'dr_grpo', 'dapo', 'cispo'].includes(lossType)) {
    const message =
      `${lossType} adds up tokens, so with one ratio a completion a long completion counts more than a short one; ` +
      'sequence-level clipping as published has grpo.lossType grpo.';
    warnings.push({ code: 'grpo.sequence-level', message });
  }
  if (lossType === 'cispo' && (epsilonHigh ?? grpo.epsilon) < 1) {
    const message =
      `cispo cuts the ratio itself at grpo.epsilonHigh, now ${epsilonHigh ?? grpo.epsilon}, so that every token counts ` +
      'at most that much; its paper has 5.';
    warnings.push({ code: 'grpo.cispo-bound', message });
  }
  return warnings;
}
