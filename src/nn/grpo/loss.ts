import type { Value } from '../../graph/graph.js';
import {
  add,
  cast,
  div,
  exp,
  gatherElements,
  less,
  maximum,
  mul,
  not,
  or,
  reduceSum,
  reshape,
  slice,
  stopGradient,
  sub,
  topK,
} from '../../ops/build.js';
import type { GrpoInputs } from './inputs.js';
import { policyLoss } from './policy-loss.js';
import { sequenceMean } from './sequences.js';
import type { GrpoLossSettings } from './settings.js';

export interface GrpoLoss {
  readonly loss: Value;
  /** The same without the entropy bonus. */
  readonly policyLoss: Value;
  /** With a quantile: 1 for the tokens that the policy loss and the bonus act on, else 0, (N). */
  readonly kept: Value | undefined;
}

/** Whether a loss looks at completions as a whole. */
export const needsSequences = (settings: GrpoLossSettings): boolean =>
  settings.importanceSamplingLevel === 'sequence' ||
  settings.lossType === 'vespo' ||
  settings.offPolicyMaskThreshold !== undefined;

/**
 * The objective of GRPO (Shao et al., 2024, https://arxiv.org/abs/2402.03300) and its relatives, as TRL computes them.
 * At sequence level one ratio stands for the whole completion (Zheng et al., 2025, https://arxiv.org/abs/2507.18071):
 *
 *     ratio = exp(lp − lp_old), or exp of its mean over the completion
 *     loss = Σ_t weight_t · (policy_t · masks_t · correction_t + β·KL_t[·ratio]) − bonus · Σ_t entropy_t
 *
 * The KL is multiplied by the ratio when the bias of off-policy tokens is to be corrected.
 */
export function grpoLoss(inputs: GrpoInputs, settings: GrpoLossSettings): GrpoLoss {
  const { correction, refLogProbs, entropies, weights } = inputs;
  const ratio = exp(logRatio(inputs, settings));
  let loss = policyLoss(inputs, ratio, settings);
  if (settings.offPolicyMaskThreshold !== undefined)
    loss = mul(loss, onPolicyMask(inputs, settings.offPolicyMaskThreshold));
  const kept = settings.topEntropyQuantile < 1 ? highEntropyMask(inputs) : undefined;
  if (kept !== undefined) loss = mul(loss, kept);
  // vespo has it in its weights.
  if (correction !== undefined && settings.lossType !== 'vespo') loss = mul(loss, correction);
  if (refLogProbs !== undefined && settings.beta !== 0) {
    const kl = klEstimate(inputs.logProbs, refLogProbs, settings);
    loss = add(loss, mul(settings.useBiasCorrectionKl ? mul(kl, ratio) : kl, settings.beta));
  }
  const total = reduceSum(mul(loss, weights));
  if (!settings.entropyBonus) return { loss: total, policyLoss: total, kept };

  if (entropies === undefined || inputs.bonusWeight === undefined) throw new TypeError('the bonus needs entropies');
  const entropy =
    kept === undefined ? reduceSum(entropies) : div(reduceSum(mul(entropies, kept)), maximum(reduceSum(kept), 1));
  return { loss: sub(total, mul(entropy, inputs.bonusWeight)), policyLoss: total, kept };
}

/** log of the ratio of each token, or at sequence level the mean over its completion. */
function logRatio(
  { logProbs, oldLogProbs, sequences }: GrpoInputs,
  { importanceSamplingLevel }: GrpoLossSettings,
): Value {
  const perToken = sub(logProbs, oldLogProbs);
  if (importanceSamplingLevel === 'token') return perToken;
  if (sequences === undefined) throw new TypeError('the sequence level needs to know the completion of each token');
  return sequenceMean(perToken, sequences);
}

/**
 * KL(policy ‖ reference) from the token that was drawn (Schulman, 2020, http://joschu.net/blog/kl-approx.html), with
 * d = lp − ref: d, d²/2, or e^(−d) + d − 1.
 */
function klEstimate(logProbs: Value, refLogProbs: Value, { klEstimator }: GrpoLossSettings): Value {
  const difference = sub(refLogProbs, logProbs);
  switch (klEstimator) {
    case 'k1':
      return sub(logProbs, refLogProbs);
    case 'k2':
      return mul(mul(difference, difference), 0.5);
    case 'k3':
      return sub(sub(exp(difference), difference), 1);
  }
}

/**
 * 0 for tokens of a completion of negative advantage that the policy has moved away from by more than the threshold, in
 * the mean of log-probabilities (DeepSeek-V3.2, 2025, https://arxiv.org/abs/2512.02556), else 1.
 */
function onPolicyMask(inputs: GrpoInputs, threshold: number): Value {
  const { logProbs, samplerLogProbs, advantages, sequences } = inputs;
  if (sequences === undefined || samplerLogProbs === undefined)
    throw new TypeError('the off-policy mask needs the completion of each token and who drew it');
  const moved = sequenceMean(sub(samplerLogProbs, stopGradient(logProbs)), sequences);
  return cast(or(not(less(advantages, 0)), not(less(threshold, moved))), logProbs.dtype);
}

/** 1 for the tokens whose entropy reaches the quantile's border (Wang et al., 2025, https://arxiv.org/abs/2506.01939). */
function highEntropyMask({ entropies, rank }: GrpoInputs): Value {
  if (entropies === undefined || rank === undefined) throw new TypeError('the quantile needs entropies and their rank');
  const fixed = stopGradient(entropies);
  const neighbours = gatherElements(topK(fixed, fixed.shape[0]!).values, rank.neighbours);
  const [below, above] = [0, 1].map((at) => reshape(slice(neighbours, 0, at, at + 1), [])) as [Value, Value];
  const border = add(below, mul(sub(above, below), rank.share));
  return cast(not(less(fixed, border)), entropies.dtype);
}
