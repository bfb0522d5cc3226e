import { z } from 'zod';
import { key } from './key.js';
import { checkWarmup, count, trainingKeys } from './training.js';

const training = trainingKeys(
  {
    learningRate: 2e-5,
    schedule: 'linear',
    warmupSteps: 0,
    warmupRatio: 0.1,
    weightDecay: 0.01,
    batchSize: 16,
    epochs: 5,
    loggingSteps: 10,
    evalSteps: 500,
    saveSteps: 500,
  },
  'Texts',
);

/** The reward model: a two-label classifier trained with R-Drop (Liang et al. 2021, https://arxiv.org/abs/2106.14448). */
export const rmSection = z
  .strictObject({
    maxLength: key(count(8).default(128), 'Longest text in tokens, prompt, completion and special tokens together.'),
    ...training,
    objective: key(
      z.enum(['labels', 'pairs']).default('labels'),
      'labels: texts with label 0 or 1; pairs: the columns prompt, chosen and rejected of data.file (Bradley–Terry).',
    ),
    centering: key(
      z.number().min(0).default(0),
      'Weight of the squared sum of the rewards of a pair, which keeps them around zero (pairs).',
    ),
    rdropAlpha: key(
      z.number().min(0).default(4),
      'Weight of the symmetric KL between two dropout passes, halved; 0 makes one pass only (labels).',
    ),
    dropout: key(z.number().min(0).lt(1).optional(), "Dropout instead of the model config's."),
    tokenDropout: key(
      z.number().min(0).lt(1).default(0),
      'Share of tokens that [MASK] hides from a step, drawn anew each time; keeps small data from being learned by heart (labels).',
    ),
    testFile: key(z.string().min(1).optional(), 'Labelled rows looked at once, after training.', { path: true }),
    baselines: key(z.boolean().default(true), 'Also measure majority, length, prompt and n-gram baselines.'),
  })
  .superRefine(checkWarmup);
