interface WarmedUp {
  /** Highest learning rate, reached after the warm-up. */
  readonly baseRate: number;
  /** Steps over which the rate rises linearly from 0. */
  readonly warmupSteps: number;
}

interface Decaying extends WarmedUp {
  /** Optimizer steps of the whole run, warm-up included. */
  readonly totalSteps: number;
}

/** A learning-rate schedule, named and parametrised as in transformers' `get_scheduler`. */
export type Schedule =
  | { readonly name: 'constant'; readonly baseRate: number }
  | (WarmedUp & { readonly name: 'constant_with_warmup' })
  | (Decaying & { readonly name: 'linear' })
  /** `cycles`: full waves of the cosine; 0.5, the default, ends at 0. */
  | (Decaying & { readonly name: 'cosine'; readonly cycles?: number })
  /** `cycles`: descents from `baseRate` to 0, each starting with a jump back up; default 1. */
  | (Decaying & { readonly name: 'cosine_with_restarts'; readonly cycles?: number })
  | (Decaying & { readonly name: 'cosine_with_min_lr'; readonly cycles?: number; readonly minRate: number })
  | (Decaying & { readonly name: 'polynomial'; readonly power?: number; readonly endRate?: number });

/**
 * The learning rate that optimizer step `step` uses; the first step is 0, so a warm-up starts with a step of rate 0.
 * Beyond `totalSteps` it goes on as transformers' does: a cosine rises again, the others stay at their end.
 *
 * @throws RangeError when the step is not a whole number of at least 0
 */
export function learningRate(schedule: Schedule, step: number): number {
  if (!Number.isSafeInteger(step) || step < 0) throw new RangeError(`step must be a whole number ≥ 0, but is ${step}`);
  if (schedule.name === 'constant') return schedule.baseRate;
  const { baseRate, warmupSteps } = schedule;
  if (step < warmupSteps) return baseRate * (step / warmupSteps);
  if (schedule.name === 'constant_with_warmup') return baseRate;

  const decaySteps = Math.max(1, schedule.totalSteps - warmupSteps);
  const progress = (step - warmupSteps) / decaySteps;
  switch (schedule.name) {
    case 'linear':
      return baseRate * Math.max(0, (schedule.totalSteps - step) / decaySteps);
    case 'cosine':
      return baseRate * cosine((schedule.cycles ?? 0.5) * 2 * progress);
    case 'cosine_with_restarts':
      return progress >= 1 ? 0 : baseRate * cosine(((schedule.cycles ?? 1) * progress) % 1);
    case 'cosine_with_min_lr':
      return schedule.minRate + (baseRate - schedule.minRate) * cosine((schedule.cycles ?? 0.5) * 2 * progress);
    case 'polynomial': {
      const endRate = schedule.endRate ?? 1e-7;
      return endRate + (baseRate - endRate) * Math.max(0, 1 - progress) ** (schedule.power ?? 1);
    }
  }
}

/** Warm-up steps from a share of the run, rounded up as transformers' Trainer does. */
export const warmupStepsOf = (ratio: number, totalSteps: number): number => Math.ceil(ratio * totalSteps);

/** From 1 at 0 to 0 at 1, along half a wave of the cosine. */
const cosine = (halfWaves: number): number => 0.5 * (1 + Math.cos(Math.PI * halfWaves));
