import { mulDims } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import { add, concat, div, logSoftmax, mul, neg, reshape, slice, sub, zerosOf } from '../ops/build.js';

export interface DpoLossSettings {
  /**
   * `sigmoid`: Rafailov et al., 2023 (https://arxiv.org/abs/2305.18290), with label smoothing the conservative form of
   * its authors; `robust`: unbiased under that share of flipped labels (Chowdhury et al., 2024,
   * https://arxiv.org/abs/2403.00409); `ipo`: Azar et al., 2023 (https://arxiv.org/abs/2310.12036).
   */
  readonly lossType: 'sigmoid' | 'robust' | 'ipo';
  readonly beta: number;
  readonly labelSmoothing: number;
}

/** Of P pairs, each (P): how much likelier than by the reference the texts are, in nats, and their tokens. */
export interface PairRatios {
  readonly chosen: Value;
  readonly rejected: Value;
  readonly chosenTokens: Value;
  readonly rejectedTokens: Value;
}

/**
 * Loss of each pair (P), with Δ the difference of its log-ratios and ε the label smoothing:
 *
 *     sigmoid: −(1 − ε)·log σ(βΔ) − ε·log σ(−βΔ)
 *     robust:  (−(1 − ε)·log σ(βΔ) + ε·log σ(−βΔ)) / (1 − 2ε)
 *     ipo:     (Δ per token − 1/(2β))²
 */
export function dpoLoss(ratios: PairRatios, { lossType, beta, labelSmoothing: epsilon }: DpoLossSettings): Value {
  const { chosen, rejected } = ratios;
  if (lossType === 'ipo') {
    const margin = sub(div(chosen, ratios.chosenTokens), div(rejected, ratios.rejectedTokens));
    const distance = sub(margin, 1 / (2 * beta));
    return mul(distance, distance);
  }
  const { right, wrong } = logSigmoids(mul(sub(chosen, rejected), beta));
  if (epsilon === 0) return neg(right);
  const clean = mul(right, -(1 - epsilon));
  return lossType === 'sigmoid'
    ? sub(clean, mul(wrong, epsilon))
    : mul(add(clean, mul(wrong, epsilon)), 1 / (1 - 2 * epsilon));
}

/**
 * Bradley and Terry (1952): −log σ(r_chosen − r_rejected) of each pair, (P). With a coefficient above 0 also
 * coefficient · (r_chosen + r_rejected)², which keeps rewards around zero (Eisenstein et al., 2023,
 * https://arxiv.org/abs/2312.09244).
 */
export function bradleyTerryLoss(chosen: Value, rejected: Value, centering = 0): Value {
  const loss = neg(logSigmoids(sub(chosen, rejected)).right);
  if (centering === 0) return loss;
  const sum = add(chosen, rejected);
  return add(loss, mul(mul(sum, sum), centering));
}

/** log σ(x) and log σ(−x) of x (P), as the log-softmax of (x, 0), which neither overflows nor has a kink. */
function logSigmoids(x: Value): { right: Value; wrong: Value } {
  const count = x.shape[0]!;
  const column = reshape(x, [count, 1]);
  const both = logSoftmax(concat([column, zerosOf(x.graph, x.dtype, [count, 1])], 1));
  const pick = (at: number): Value => reshape(slice(both, 1, at, at + 1), [mulDims(count, 1)]);
  return { right: pick(0), wrong: pick(1) };
}
