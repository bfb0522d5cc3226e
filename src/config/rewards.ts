import { z } from 'zod';
import { key } from './key.js';
import { count } from './training.js';

export const AGGREGATIONS = ['sum_then_normalize', 'normalize_then_sum'] as const;
export const LENGTH_CONTROLS = ['none', 'residual', 'price'] as const;

const weight = (preset: number, help: string) => key(z.number().default(preset), help);

/** What a completion is rewarded for: each reward has a section and a weight; those of weight 0 are not computed. */
export const rewardsSection = z.strictObject({
  aggregation: key(
    z.enum(AGGREGATIONS).default('sum_then_normalize'),
    'How several rewards become one advantage: their weighted sum is normalised, or each by itself and then summed.',
  ),
  model: key(
    z
      .strictObject({
        weight: weight(1, 'Weight of the reward model (--rm).'),
        score: key(
          z.enum(['humorous', 'difference']).default('humorous'),
          'The logit of "humorous", or its difference to the logit of "not humorous": the log-odds.',
        ),
        temperature: key(z.number().gt(0).default(1), 'Divides the score.'),
        lengthControl: key(
          z.enum(LENGTH_CONTROLS).default('none'),
          'Takes length out of the score: residual subtracts what recent completions show a character to be worth, price subtracts lengthPrice a character.',
        ),
        lengthPrice: key(z.number().default(0), 'Price of a character with lengthControl price.'),
        lengthWindow: key(count().default(8), "Rollouts that the worth of a character is fitted on ('residual')."),
      })
      .prefault({}),
    'The reward model.',
  ),
});
export type RewardsConfig = z.output<typeof rewardsSection>;
