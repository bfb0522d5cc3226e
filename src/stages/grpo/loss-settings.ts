import type { RolloutCorrection } from '../../config/grpo-loss.js';
import type { GrpoSection } from '../../config/sections.js';
import type { GrpoLossSettings } from '../../nn/grpo/settings.js';

/** The loss that a configuration describes. */
export function lossSettings(section: GrpoSection): GrpoLossSettings {
  const { lossType, epsilon } = section;
  const mode: RolloutCorrection = section.rolloutCorrection ?? (lossType === 'vespo' ? 'token_mask' : 'sequence_mask');
  return {
    lossType,
    beta: section.beta,
    klEstimator: section.klEstimator,
    useBiasCorrectionKl: section.useBiasCorrectionKl,
    epsilonLow: epsilon,
    epsilonHigh: section.epsilonHigh ?? epsilon,
    delta: section.delta,
    importanceSamplingLevel: section.importanceSamplingLevel,
    sapo: { positive: section.sapoTemperaturePos, negative: section.sapoTemperatureNeg },
    vespo: {
      positive: { k: section.vespoKPos, lambda: section.vespoLambdaPos },
      negative: { k: section.vespoKNeg, lambda: section.vespoLambdaNeg },
    },
    topEntropyQuantile: section.topEntropyQuantile,
    offPolicyMaskThreshold: section.offPolicyMaskThreshold,
    rolloutCorrection:
      mode === 'none' ? undefined : { mode, max: section.rolloutCorrectionMax, min: section.rolloutCorrectionMin },
    entropyBonus: section.entropyCoef !== 0 || section.useAdaptiveEntropy,
  };
}
