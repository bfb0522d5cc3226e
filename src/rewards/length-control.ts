import { z } from 'zod';
import type { RewardsConfig } from '../config/rewards.js';

type Settings = Pick<RewardsConfig['model'], 'lengthControl' | 'lengthPrice' | 'lengthWindow'>;

/** Sums of squares and products of length and score, about the means of each prompt's group. */
const momentsSchema = z.strictObject({ xx: z.number(), xy: z.number() });
type Moments = z.infer<typeof momentsSchema>;

/** What a run carries from one rollout to the next. */
export const lengthControlSchema = z.strictObject({
  /** Mean length of the first completions: residuals are scores as if every text were as long. */
  startLength: z.number().nullable(),
  window: z.array(momentsSchema),
});
export type LengthControlState = z.infer<typeof lengthControlSchema>;

export interface Controlled {
  readonly scores: number[];
  /** What a character costs. */
  readonly slope: number;
}

/**
 * Scores without what length alone earns. With `residual` the worth of a character is the slope of least squares of
 * score on length over the rollouts of a window, lengths and scores taken about the means of their group: prompts whose
 * answers are long do not count, only that of two answers to one prompt the longer scores higher. That is the part of a
 * reward that an advantage sees. The slope is fitted anew as the policy moves, so that a reward that saturates is not
 * overcharged. (Length-controlled AlpacaEval, Dubois et al. 2024, https://arxiv.org/abs/2404.04475, takes length out of
 * a judge's preference by regression likewise.)
 */
export class LengthControl {
  state: LengthControlState = { startLength: null, window: [] };

  constructor(private readonly settings: Settings) {}

  /**
   * @param lengths characters of each completion, those of a prompt next to each other
   * @param learn whether these completions belong to training and enter the window; held-out ones are only measured
   */
  apply(
    lengths: readonly number[],
    scores: readonly number[],
    { groupSize, learn }: { groupSize: number; learn: boolean },
  ): Controlled {
    const { lengthControl, lengthPrice, lengthWindow } = this.settings;
    if (lengthControl === 'none') return { scores: [...scores], slope: 0 };
    if (lengthControl === 'price') {
      return { scores: scores.map((score, i) => score - lengthPrice * lengths[i]!), slope: lengthPrice };
    }
    const own = momentsWithin(lengths, scores, groupSize);
    const startLength = this.state.startLength ?? lengths.reduce((a, b) => a + b, 0) / lengths.length;
    const window = learn ? [...this.state.window, own].slice(-lengthWindow) : this.state.window;
    const slope = slopeOf(window.length > 0 ? window : [own]);
    this.state = { startLength, window };
    return { scores: scores.map((score, i) => score - slope * (lengths[i]! - startLength)), slope };
  }
}

function momentsWithin(x: readonly number[], y: readonly number[], groupSize: number): Moments {
  const moments = { xx: 0, xy: 0 };
  for (let start = 0; start < x.length; start += groupSize) {
    const scored = Array.from({ length: groupSize }, (_, i) => start + i).filter((i) => Number.isFinite(y[i]));
    const meanX = scored.reduce((sum, i) => sum + x[i]!, 0) / scored.length;
    const meanY = scored.reduce((sum, i) => sum + y[i]!, 0) / scored.length;
    for (const i of scored) {
      moments.xx += (x[i]! - meanX) ** 2;
      moments.xy += (x[i]! - meanX) * (y[i]! - meanY);
    }
  }
  return moments;
}

function slopeOf(window: readonly Moments[]): number {
  const xx = window.reduce((sum, each) => sum + each.xx, 0);
  return xx === 0 ? 0 : window.reduce((sum, each) => sum + each.xy, 0) / xx;
}
