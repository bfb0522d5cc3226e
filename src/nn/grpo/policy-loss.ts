import type { Value } from '../../graph/graph.js';
import {
  add,
  exp,
  less,
  log,
  maximum,
  minimum,
  mul,
  neg,
  scalar,
  sigmoid,
  stopGradient,
  sub,
  where,
} from '../../ops/build.js';
import { sequenceSum } from './sequences.js';
import type { GrpoInputs } from './inputs.js';
import type { GrpoLossSettings } from './settings.js';

/** Bounds of vespo's log-weights: the lower one is ln 1e-8. */
const [lowest, highest] = [Math.log(1e-8), 20];

/**
 * What each token loses, (N), before masks and averages. With the ratio r, the advantage A and the log-probability lp:
 *
 *     grpo, bnpo, dr_grpo, dapo, luspo   −min(min(r, δ)·A, clip(r, 1 − ε_low, 1 + ε_high)·A)
 *     cispo                              −sg(min(r, ε_high))·A·lp
 *     sapo                               −4/τ·σ(τ(r − 1))·A, τ by the sign of A
 *     vespo                              −sg(φ(w))·A·lp, w the ratio of the whole completion
 *
 * where sg stops the gradient. Clipping is PPO's (Schulman et al., 2017) with separate borders (Yu et al., 2025,
 * https://arxiv.org/abs/2503.14476) and the bound δ of INTELLECT-2 (2025, https://arxiv.org/abs/2505.07291); the others
 * are of MiniMax-M1 (2025, https://arxiv.org/abs/2506.13585), https://arxiv.org/abs/2511.20347 (2025) and
 * https://arxiv.org/abs/2602.10693 (2026).
 */
export function policyLoss(inputs: GrpoInputs, ratio: Value, settings: GrpoLossSettings): Value {
  const { logProbs, advantages } = inputs;
  switch (settings.lossType) {
    case 'cispo':
      return neg(mul(mul(stopGradient(minimum(ratio, settings.epsilonHigh)), advantages), logProbs));
    case 'sapo':
      return neg(mul(softGate(ratio, advantages, settings), advantages));
    case 'vespo':
      return neg(mul(mul(stopGradient(gammaWeights(inputs, settings)), advantages), logProbs));
    default: {
      const { delta, epsilonLow, epsilonHigh } = settings;
      const clipped = minimum(maximum(ratio, 1 - epsilonLow), 1 + epsilonHigh);
      const bounded = delta === undefined ? ratio : minimum(ratio, delta);
      return neg(minimum(mul(bounded, advantages), mul(clipped, advantages)));
    }
  }
}

/** 4/τ·σ(τ(r − 1)), which has the value 2/τ and the slope 1 at r = 1. */
function softGate(ratio: Value, advantages: Value, { sapo }: GrpoLossSettings): Value {
  const isPositive = less(0, advantages);
  const temperature = where(isPositive, scalar(ratio.graph, ratio.dtype, sapo.positive), sapo.negative);
  const scale = where(isPositive, scalar(ratio.graph, ratio.dtype, 4 / sapo.positive), 4 / sapo.negative);
  return mul(sigmoid(mul(temperature, sub(ratio, 1))), scale);
}

/** φ(w) of each token's completion, where log w sums log-ratios, and corrections of the rollout, over its tokens. */
function gammaWeights({ logProbs, oldLogProbs, sequences, correction, advantages }: GrpoInputs, s: GrpoLossSettings) {
  if (sequences === undefined) throw new TypeError('vespo needs to know the completion of each token');
  const clamp = (x: Value, low: number): Value => minimum(maximum(x, low), highest);
  const drift = clamp(sub(logProbs, oldLogProbs), -highest);
  const perToken = correction === undefined ? drift : add(drift, clamp(log(correction), lowest));
  const logWeight = clamp(sequenceSum(perToken, sequences), lowest);
  const isNegative = less(advantages, 0);
  const pick = (of: 'k' | 'lambda'): Value =>
    where(isNegative, scalar(logProbs.graph, logProbs.dtype, s.vespo.negative[of]), s.vespo.positive[of]);
  const lambda = pick('lambda');
  return exp(add(lambda, sub(mul(pick('k'), logWeight), mul(lambda, exp(logWeight)))));
}
