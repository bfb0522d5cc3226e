import type { Value } from '../graph/graph.js';
import {
  add,
  cast,
  equal,
  exp,
  gatherElements,
  logSoftmax,
  mul,
  neg,
  reduceMax,
  reduceMean,
  reduceSum,
  reshape,
  stopGradient,
  sub,
  tokenEntropies,
  tokenLogProbs,
  type TokenScores,
} from '../ops/build.js';

/** Mean cross entropy of classes, in nats: logits (N, C), labels int32 (N) → scalar. */
export const crossEntropy = (logits: Value, labels: Value): Value => neg(reduceMean(tokenLogProbs(logits, labels)));

/**
 * R-Drop (Liang et al., 2021, https://arxiv.org/abs/2106.14448): two dropout passes over the same rows. Mean of their
 * cross entropies + alpha · mean of KL(p₁‖p₂) and KL(p₂‖p₁), KL summed over classes and averaged over rows.
 */
export function rDrop(
  first: Value,
  second: Value,
  labels: Value,
  alpha: number,
): { loss: Value; crossEntropy: Value; kl: Value } {
  const entropy = mul(add(crossEntropy(first, labels), crossEntropy(second, labels)), 0.5);
  const [logP, logQ] = [logSoftmax(first), logSoftmax(second)];
  // KL(p‖q) + KL(q‖p) = Σ (p − q)(log p − log q)
  const symmetric = reduceSum(mul(sub(exp(logP), exp(logQ)), sub(logP, logQ)), 1);
  const kl = mul(reduceMean(symmetric), 0.5);
  return { loss: add(entropy, mul(kl, alpha)), crossEntropy: entropy, kl };
}

/** What there is to log of next-token logits (N, V), without gradient: entropy in nats (N), and 1 where the target is the argmax (N). */
export function tokenStatistics(logits: Value, targets: Value): { entropies: Value; correct: Value } {
  const fixed = stopGradient(logits);
  const entropies = tokenEntropies(fixed);
  const rows = targets.shape[0]!;
  const chosen = reshape(gatherElements(fixed, reshape(targets, [rows, 1])), [rows]);
  return { entropies, correct: cast(equal(chosen, reduceMax(fixed, 1)), logits.dtype) };
}

/** The same and the log-probabilities, with their gradient, from logits that exist as a whole. */
export const scoresOfLogits = (logits: Value, targets: Value): TokenScores => ({
  logProbs: tokenLogProbs(logits, targets),
  ...tokenStatistics(logits, targets),
});
