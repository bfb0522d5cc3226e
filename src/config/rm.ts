import { z } from 'zod';
import { key, refuse } from './key.js';
import { rmLoraSection } from './lora.js';
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
    tokensAtOnce: key(
      count(8).optional(),
      'Most tokens that go through the model at once, padding and both passes of R-Drop included: a batch is cut by length, its gradients are summed; fewer take less memory (default: 512, or what the longest text takes; labels).',
    ),
    precision: key(
      z.enum(['float32', 'int8']).default('float32'),
      'Products of the blocks while it learns, forward and to their inputs: int8 rounds weights and activations to 8 bits for each; the weights and their gradients stay float32, and so does what is measured.',
    ),
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
    lora: key(rmLoraSection.prefault({}), 'A low-rank adapter that learns, with the head, in place of all weights.'),
    testFile: key(z.string().min(1).optional(), 'Labelled rows looked at once, after training.', { path: true }),
    baselines: key(z.boolean().default(true), 'Also measure majority, length, prompt and n-gram baselines.'),
  })
  .superRefine(checkWarmup)
  .superRefine(({ tokensAtOnce, maxLength, rdropAlpha }, context) => {
    const longest = maxLength * (rdropAlpha > 0 ? 2 : 1);
    if (tokensAtOnce === undefined || tokensAtOnce >= longest) return;
    const message = `is ${tokensAtOnce}, but a text of maxLength takes ${longest}`;
    refuse(context, ['tokensAtOnce'], message, `set ${longest} or more, or lower maxLength`);
  });
