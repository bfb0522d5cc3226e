import type { KlEstimator, LossType, RolloutCorrection } from '../../config/grpo-loss.js';

export interface GrpoLossSettings {
  readonly lossType: LossType;
  /** Weight of the KL to the reference; 0 for none. */
  readonly beta: number;
  readonly klEstimator: KlEstimator;
  /** Multiply the KL by the ratio. */
  readonly useBiasCorrectionKl: boolean;
  readonly epsilonLow: number;
  readonly epsilonHigh: number;
  /** Largest ratio where the advantage is negative. */
  readonly delta: number | undefined;
  readonly importanceSamplingLevel: 'token' | 'sequence';
  /** Temperatures of sapo's gate by the sign of the advantage. */
  readonly sapo: { readonly positive: number; readonly negative: number };
  /** Power and decay of vespo's weight by the sign of the advantage. */
  readonly vespo: { readonly positive: GammaWeight; readonly negative: GammaWeight };
  /** Share of the tokens, those of highest entropy, that the policy loss keeps. */
  readonly topEntropyQuantile: number;
  /** Mean fall of log-probability above which a completion of negative advantage is left out, in nats. */
  readonly offPolicyMaskThreshold: number | undefined;
  /** How tokens are weighed by the policy's probability over the sampler's. */
  readonly rolloutCorrection: CorrectionSettings | undefined;
  /** A multiple of the mean entropy is taken from the loss. */
  readonly entropyBonus: boolean;
}

export interface CorrectionSettings {
  readonly mode: Exclude<RolloutCorrection, 'none'>;
  readonly max: number;
  readonly min: number | undefined;
}

/** φ(w) = e^λ · w^k · e^(−λw), which is 1 at w = 1. */
export interface GammaWeight {
  readonly k: number;
  readonly lambda: number;
}

/** The clipped loss and nothing else, with TRL's constants for the other types. */
export const plainLoss: GrpoLossSettings = {
  lossType: 'dapo',
  beta: 0,
  klEstimator: 'k3',
  useBiasCorrectionKl: true,
  epsilonLow: 0.2,
  epsilonHigh: 0.2,
  delta: undefined,
  importanceSamplingLevel: 'token',
  sapo: { positive: 1, negative: 1.05 },
  vespo: { positive: { k: 2, lambda: 3 }, negative: { k: 3, lambda: 2 } },
  topEntropyQuantile: 1,
  offPolicyMaskThreshold: undefined,
  rolloutCorrection: undefined,
  entropyBonus: false,
};
