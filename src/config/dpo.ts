import { z } from 'zod';
import { key } from './key.js';
import { checkWarmup, count, trainingKeys } from './training.js';

const training = trainingKeys(
  {
    learningRate: 1e-5,
    schedule: 'linear',
    warmupSteps: 0,
    warmupRatio: 0.1,
    weightDecay: 0,
    batchSize: 4,
    epochs: 3,
    loggingSteps: 10,
    evalSteps: 500,
    saveSteps: 500,
  },
  'Pairs',
);

/** Direct preference optimisation (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290) on pairs of texts. */
export const dpoSection = z
  .strictObject({
    maxLength: key(count(8).default(512), 'Longest prompt and text in tokens; a longer text is cut before its EOS.'),
    ...training,
    gradientAccumulationSteps: key(count().default(1), 'Batches whose gradients make one step.'),
    beta: key(z.number().gt(0).default(0.1), 'How closely the policy is held to the reference: higher is closer.'),
    lossType: key(
      z.enum(['sigmoid', 'robust', 'ipo']).default('sigmoid'),
      'sigmoid as published; robust to a share of flipped labels; ipo, squared and per token.',
    ),
    labelSmoothing: key(
      z.number().min(0).lt(0.5).default(0),
      'Share of pairs taken to be the wrong way round (sigmoid and robust).',
    ),
  })
  .superRefine(checkWarmup);
