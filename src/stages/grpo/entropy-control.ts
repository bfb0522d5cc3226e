import { z } from 'zod';
import type { GrpoSection } from '../../config/sections.js';

/** The weight of the entropy bonus and the mean entropy that the last step measured; null before the first. */
export interface EntropyControl {
  readonly coef: number;
  readonly measured: number | null;
}

export const entropyControlSchema = z.object({ coef: z.number(), measured: z.number().nullable() });

type Settings = Pick<
  GrpoSection,
  'entropyCoef' | 'useAdaptiveEntropy' | 'entropyTarget' | 'entropyCoefDelta' | 'entropyCoefMin' | 'entropyCoefMax'
>;

export const initialControl = ({ entropyCoef }: Settings): EntropyControl => ({ coef: entropyCoef, measured: null });

/** What the bonus counts in the next step: adaptively, nothing until an entropy at or below the target was measured. */
export function appliedCoef({ coef, measured }: EntropyControl, settings: Settings): number {
  if (!settings.useAdaptiveEntropy) return coef;
  return measured !== null && measured <= settings.entropyTarget ? coef : 0;
}

/**
 * Adaptive entropy control (Skywork-OR1; He et al., 2025, https://arxiv.org/abs/2505.22312): after a step the weight goes
 * up where the entropy that it measured is at most the target, and down where it is above.
 */
export function adjusted(control: EntropyControl, measured: number, settings: Settings): EntropyControl {
  if (!settings.useAdaptiveEntropy) return control;
  const { entropyTarget, entropyCoefDelta: delta, entropyCoefMin, entropyCoefMax } = settings;
  const coef =
    measured <= entropyTarget
      ? Math.min(control.coef + delta, entropyCoefMax)
      : Math.max(control.coef - delta, entropyCoefMin);
  return { coef, measured };
}
