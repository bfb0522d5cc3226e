import type { Dim } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import { add, exp, gatherRows, maximum, minimum, mul, neg, reduceSum, scatterAddRows, sub } from '../ops/build.js';

/** Tokens of all completions of a batch, one after the other: every tensor but `advantages` has shape (N). */
export interface GrpoInputs {
  /** Log-probabilities by the policy that learns. */
  readonly logProbs: Value;
  /** By the policy that wrote the tokens. */
  readonly oldLogProbs: Value;
  /** By the reference; undefined when beta is 0. */
  readonly refLogProbs: Value | undefined;
  /** Advantage of the token's completion. */
  readonly advantages: Value;
  /** What the token counts in the loss: all of the loss type's normalisation (see `tokenWeights`). */
  readonly weights: Value;
  /** Needed for the sequence level: the token's completion, int32, and 1 / tokens of that completion. */
  readonly sequences?: { readonly of: Value; readonly share: Value; readonly count: Dim };
}

export interface GrpoLossSettings {
  readonly beta: number;
  readonly epsilonLow: number;
  readonly epsilonHigh: number;
  readonly importanceSamplingLevel: 'token' | 'sequence';
  readonly useBiasCorrectionKl: boolean;
}

/**
 * The clipped objective of GRPO (Shao et al., 2024, https://arxiv.org/abs/2402.03300) with an asymmetric clip range
 * (Yu et al., 2025) and, at sequence level, one ratio for the whole completion (Zheng et al., 2025):
 *
 *     ratio = exp(lp − lp_old)
 *     l_t = −min(ratio·A, clip(ratio, 1 − ε_low, 1 + ε_high)·A) + β·(exp(ref − lp) − (ref − lp) − 1)[·ratio]
 *     loss = Σ_t weight_t · l_t
 *
 * The KL estimate is multiplied by the ratio when the bias of off-policy tokens is to be corrected, as TRL does.
 */
export function grpoLoss(inputs: GrpoInputs, settings: GrpoLossSettings): Value {
  const { logProbs, advantages, refLogProbs } = inputs;
  const ratio = exp(logRatio(inputs, settings));
  const clipped = minimum(maximum(ratio, 1 - settings.epsilonLow), 1 + settings.epsilonHigh);
  let loss = neg(minimum(mul(ratio, advantages), mul(clipped, advantages)));
  if (refLogProbs !== undefined && settings.beta !== 0) {
    const difference = sub(refLogProbs, logProbs);
    const kl = sub(sub(exp(difference), difference), 1);
    loss = add(loss, mul(settings.useBiasCorrectionKl ? mul(kl, ratio) : kl, settings.beta));
  }
  return reduceSum(mul(loss, inputs.weights));
}

/** log of the ratio of each token, or at sequence level the mean over its completion. */
function logRatio(
  { logProbs, oldLogProbs, sequences }: GrpoInputs,
  { importanceSamplingLevel }: GrpoLossSettings,
): Value {
  const perToken = sub(logProbs, oldLogProbs);
  if (importanceSamplingLevel === 'token') return perToken;
  if (sequences === undefined) throw new TypeError('the sequence level needs to know the completion of each token');
  const means = scatterAddRows(mul(perToken, sequences.share), sequences.of, sequences.count);
  return gatherRows(means, sequences.of);
}

export type GrpoLossType = 'grpo' | 'bnpo' | 'dr_grpo' | 'dapo';

/**
 * What each token of a completion counts, by the loss type: `grpo` averages over completions the mean over tokens, `bnpo`
 * over the tokens of the micro-batch, `dr_grpo` divides by completions × longest length allowed (Liu et al., 2025),
 * `dapo` by the tokens of the whole rollout shared out among its steps.
 *
 * @param lengths learned tokens of each completion of the micro-batch
 * @returns the weight of a token of each completion
 */
export function tokenWeights(
  lossType: GrpoLossType,
  lengths: readonly number[],
  scale: {
    readonly maxCompletionLength: number;
    /** Micro-batches of one optimizer step. */
    readonly accumulation: number;
    /** Learned tokens of the whole rollout, and the micro-batches it is cut into. */
    readonly rolloutTokens: number;
    readonly rolloutBatches: number;
  },
): number[] {
  const { accumulation } = scale;
  const tokens = lengths.reduce((a, b) => a + b, 0);
  switch (lossType) {
    case 'grpo':
      return lengths.map((length) => 1 / (Math.max(length, 1) * lengths.length * accumulation));
    case 'bnpo':
      return lengths.map(() => 1 / (Math.max(tokens, 1) * accumulation));
    case 'dr_grpo':
      return lengths.map(() => 1 / (lengths.length * scale.maxCompletionLength * accumulation));
    case 'dapo':
      return lengths.map(() => scale.rolloutBatches / (Math.max(scale.rolloutTokens, 1) * accumulation));
  }
}
