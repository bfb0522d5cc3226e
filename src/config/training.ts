import { z } from 'zod';
import { type RefineContext, key, refuse } from './key.js';

export const SCHEDULES = ['constant', 'constant_with_warmup', 'linear', 'cosine'] as const;
export type Schedule = (typeof SCHEDULES)[number];

/** A whole number of at least `least`. */
export const count = (least = 1) => z.int().min(least);
/** A share: 0 to 1, both included. */
export const share = () => z.number().min(0).max(1);

interface TrainingDefaults {
  learningRate: number;
  schedule: Schedule;
  warmupSteps: number;
  warmupRatio: number;
  weightDecay: number;
  batchSize: number;
  epochs: number;
  loggingSteps: number;
  evalSteps: number;
  saveSteps: number;
}

/** The keys every trainer has, with that trainer's defaults. */
export function trainingKeys(defaults: TrainingDefaults, unit: string) {
  return {
    epochs: key(z.number().gt(0).default(defaults.epochs), 'Passes over the training set; a part of one is allowed.'),
    maxSteps: key(count().optional(), 'Optimizer steps after which training ends, whatever the epochs say.'),
    batchSize: key(count().default(defaults.batchSize), `${unit} in one forward and backward pass.`),
    learningRate: key(z.number().gt(0).default(defaults.learningRate), 'Highest learning rate of AdamW.'),
    schedule: key(z.enum(SCHEDULES).default(defaults.schedule), 'How the learning rate moves after the warm-up.'),
    warmupSteps: key(count(0).default(defaults.warmupSteps), 'Steps over which the learning rate rises from 0.'),
    warmupRatio: key(
      share().default(defaults.warmupRatio),
      'Warm-up as a share of all steps, rounded up; used when warmupSteps is 0.',
    ),
    weightDecay: key(
      z.number().min(0).default(defaults.weightDecay),
      'Decoupled weight decay; biases and norm weights are left out.',
    ),
    maxGradNorm: key(z.number().gt(0).default(1), 'Global norm to which gradients are clipped.'),
    loggingSteps: key(count().default(defaults.loggingSteps), 'Steps between two lines of metrics.'),
    evalSteps: key(count().default(defaults.evalSteps), 'Steps between two looks at the validation set.'),
    saveSteps: key(count().default(defaults.saveSteps), 'Steps between two checkpoints.'),
    recompute: key(
      z.boolean().default(false),
      'Compute what is in the blocks of the model again for the gradient instead of keeping it: less memory, more time.',
    ),
    stability: key(stabilitySection.prefault({}), 'What happens when the loss is no finite number, or jumps.'),
  };
}

const stabilitySection = z.strictObject({
  maxSkippedSteps: key(
    count().default(5),
    'Steps in a row skipped for a loss or gradient that is not finite before training stops.',
  ),
  spikeThreshold: key(
    z.number().gt(0).default(10),
    'Robust standard deviations above the median of the newest losses at which a loss is a spike.',
  ),
  spikeWindow: key(count(8).default(50), 'Newest losses that a spike is told by; none is told before half of them.'),
  rollback: key(
    z.boolean().default(false),
    'After a spike, take back the weights of the last checkpoint and leave out the batches since.',
  ),
});

/** The keys of every trainer, resolved. */
export type TrainingSection = z.output<z.ZodObject<ReturnType<typeof trainingKeys>>>;

interface Warmup {
  schedule: Schedule;
  warmupSteps: number;
  warmupRatio: number;
}

/** Refuses a warm-up that the schedule would ignore. */
export function checkWarmup(section: Warmup, context: RefineContext): void {
  if (section.schedule !== 'constant') return;
  for (const name of ['warmupSteps', 'warmupRatio'] as const) {
    if (section[name] === 0) continue;
    const fix = 'set schedule to constant_with_warmup, or this to 0';
    refuse(context, [name], `is ${section[name]}, but the schedule constant has no warm-up`, fix);
  }
}
