import type { Schedule as ScheduleName } from '../config/training.js';
import { warmupStepsOf, type Schedule } from '../optim/schedules.js';

/** The schedule that a stage's section describes, over a run of `totalSteps`. */
export function scheduleOf(
  section: { schedule: ScheduleName; learningRate: number; warmupSteps: number; warmupRatio: number },
  totalSteps: number,
): Schedule {
  const baseRate = section.learningRate;
  if (section.schedule === 'constant') return { name: 'constant', baseRate };
  const warmupSteps = section.warmupSteps > 0 ? section.warmupSteps : warmupStepsOf(section.warmupRatio, totalSteps);
  if (section.schedule === 'constant_with_warmup') return { name: 'constant_with_warmup', baseRate, warmupSteps };
  return { name: section.schedule, baseRate, warmupSteps, totalSteps };
}
