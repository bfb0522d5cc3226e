import type { LossType } from '../../config/grpo-loss.js';

/** What the averages of the loss types are taken over. */
export interface LossScale {
  readonly maxCompletionLength: number;
  /** Batches of one optimizer step. */
  readonly accumulation: number;
  /** Learned tokens of the whole rollout, and the batches it is cut into. */
  readonly rolloutTokens: number;
  readonly rolloutBatches: number;
}

/**
 * What each token of a completion counts, by the loss type: `grpo` and `sapo` average over completions the mean over
 * tokens, `bnpo` over the tokens of the batch, `dr_grpo` divides by completions × longest length allowed (Liu et al., 2025,
 * https://arxiv.org/abs/2503.20783), `dapo`, `cispo` and `vespo` by the tokens of the whole rollout shared out among its
 * steps, `luspo` averages over completions the sum over tokens (2026, https://arxiv.org/abs/2602.05261).
 *
 * @param lengths learned tokens of each completion of the batch
 * @returns the weight of a token of each completion
 */
export function tokenWeights(lossType: LossType, lengths: readonly number[], scale: LossScale): number[] {
  const { accumulation } = scale;
  const tokens = lengths.reduce((a, b) => a + b, 0);
  switch (lossType) {
    case 'grpo':
    case 'sapo':
      return lengths.map((length) => 1 / (Math.max(length, 1) * lengths.length * accumulation));
    case 'bnpo':
      return lengths.map(() => 1 / (Math.max(tokens, 1) * accumulation));
    case 'dr_grpo':
      return lengths.map(() => 1 / (lengths.length * scale.maxCompletionLength * accumulation));
    case 'dapo':
    case 'cispo':
    case 'vespo':
      return lengths.map(() => scale.rolloutBatches / (Math.max(scale.rolloutTokens, 1) * accumulation));
    case 'luspo':
      return lengths.map(() => 1 / (lengths.length * accumulation));
  }
}

/**
 * Where the q-quantile of `count` values lies once they are sorted, the largest first: between two neighbours, a share of
 * the way from the lower to the upper, as torch.quantile has it. In float32, so that a rank that ought to be whole is.
 */
export function quantileRank(count: number, q: number): { below: number; above: number; share: number } {
  const last = count - 1;
  const position = Math.fround(Math.fround(q) * last);
  const below = Math.min(Math.floor(position), last);
  return { below: last - below, above: last - Math.min(below + 1, last), share: position - below };
}
