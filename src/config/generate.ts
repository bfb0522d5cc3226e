import { z } from 'zod';
import { key, refuse } from './key.js';
import { samplingKeys } from './sampling.js';
import { count } from './training.js';

/** Writing texts; the defaults are those of the published run's samples. */
export const generateSection = z
  .strictObject({
    ...samplingKeys({ temperature: 0.7, topP: 0.9, maxNewTokens: 100 }, true),
    ignoreEos: key(z.boolean().default(false), 'Go on past EOS until maxNewTokens.', { flag: '--ignore-eos' }),
    bestOf: key(count().default(1), 'Texts to write for a prompt, of which the best rewarded is kept.', {
      flag: '--best-of <n>',
    }),
    batchSize: key(count().default(16), 'Texts written at once.'),
  })
  .superRefine((generate, context) => {
    if (generate.bestOf > 1 && generate.temperature === 0) {
      const fix = 'raise the temperature, or leave bestOf at 1';
      refuse(context, ['bestOf'], `is ${generate.bestOf} at temperature 0, where all texts are the same`, fix);
    }
  });

/** Measuring models against each other on unseen prompts. */
export const evaluateSection = z.strictObject({
  prompts: key(count(2).default(200), 'Validation prompts to write to.'),
  seeds: key(count().default(3), 'Texts of each model for a prompt, each from its own seed.'),
  bootstrapSamples: key(count(100).default(2000), 'Resamplings behind a confidence interval.'),
});
