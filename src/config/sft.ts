import { z } from 'zod';
import { key } from './key.js';
import { samplingKeys } from './sampling.js';
import { checkWarmup, count, trainingKeys } from './training.js';

export const SFT_LOSS_TYPES = ['nll', 'dft'] as const;
export type SftLossType = (typeof SFT_LOSS_TYPES)[number];

const training = trainingKeys(
  {
    learningRate: 2e-5,
    schedule: 'constant',
    warmupSteps: 0,
    warmupRatio: 0,
    weightDecay: 0.01,
    batchSize: 4,
    epochs: 3,
    loggingSteps: 10,
    evalSteps: 500,
    saveSteps: 500,
  },
  'Samples',
);

/** Supervised fine-tuning with the published settings. */
export const sftSection = z
  .strictObject({
    maxLength: key(count(8).default(256), 'Longest sample in tokens; a longer completion is cut before its EOS.'),
    ...training,
    gradientAccumulationSteps: key(count().default(1), 'Batches whose gradients make one step, weighted by tokens.'),
    lossType: key(
      z.enum(SFT_LOSS_TYPES).default('nll'),
      "Loss of a token: nll is its cross entropy, dft that times the token's probability, so that unlikely tokens pull less.",
    ),
    packing: key(
      z.boolean().default(false),
      'Put samples into packs of at most maxLength tokens (best fit first); batchSize then counts packs.',
    ),
    completionOnlyLoss: key(z.boolean().default(true), 'Learn the completion and its EOS only, not the prompt.'),
    sampleSteps: key(count().default(500), 'Steps between two rounds of sample texts.'),
    samples: key(count(0).default(2), 'Validation prompts written to in such a round.'),
    sampling: key(
      z.strictObject(samplingKeys({ temperature: 0.7, topP: 0.9, maxNewTokens: 100 })).prefault({}),
      'How the sample texts are drawn.',
    ),
  })
  .superRefine(checkWarmup);
