import { z } from 'zod';
import { key, refuse, type RefineContext } from './key.js';
import { count } from './training.js';

export const AGGREGATIONS = ['sum_then_normalize', 'normalize_then_sum'] as const;
export const EARLY_STOPPING = ['none', 'length_controlled', 'rules'] as const;
export const LENGTH_CONTROLS = ['none', 'residual', 'price'] as const;

const weight = (preset: number, help: string) => key(z.number().default(preset), help);
const rule = (help: string) => key(z.strictObject({ weight: weight(0, 'Weight of this rule.') }).prefault({}), help);

/** What a completion is rewarded for: each reward has a section and a weight; those of weight 0 are not computed. */
export const rewardsSection = z
  .strictObject({
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
          precision: key(
            z.enum(['float32', 'int8']).default('float32'),
            'Products of its blocks: int8 rounds weights and activations to 8 bits, which takes less than half of the time and moves scores by about a hundredth.',
          ),
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
    file: key(
      z
        .strictObject({
          path: key(z.string().min(1).optional(), 'TypeScript or JavaScript file whose default export rewards.', {
            path: true,
            flag: '--reward <file>',
          }),
          weight: weight(1, 'Weight of the reward of that file.'),
          timeLimit: key(z.number().gt(0).default(60), 'Seconds that it may take for one rollout.'),
        })
        .prefault({}),
      'A reward of your own.',
    ),
    words: rule('Uses the words that the prompt asks for: the share of them.'),
    length: key(
      z
        .strictObject({
          weight: weight(0, 'Weight of this rule.'),
          min: key(count(0).default(15), 'Fewest characters that earn all.'),
          max: key(count().default(100), 'Most characters that earn all; twice as many earn nothing.'),
        })
        .prefault({}),
      'Keeps to a band of lengths.',
    ),
    repetition: rule('Does not repeat itself: the share of 3-grams that are new in the text.'),
    novelty: rule('Is not copied: the share of characters outside stretches of 8 from the training jokes.'),
    chinese: rule('Is Chinese that can be read: 1, or 0 for garbage.'),
    ending: rule('Ends by itself, with EOS: 1, or 0.'),
  })
  .superRefine(({ length }, context) => {
    if (length.min <= length.max) return;
    refuse(
      context,
      ['length', 'min'],
      `is ${length.min}, above length.max (${length.max})`,
      'raise one or lower the other',
    );
  });

/** When to stop before the last step: by held-out prompts, and by something that is not what training rewards. */
export const earlyStoppingSection = z.strictObject({
  criterion: key(
    z.enum(EARLY_STOPPING).default('none'),
    'What must rise on held-out prompts: length_controlled, the reward less what length earned at the start; rules, the mean of all rules; none never stops.',
  ),
  patience: key(count().default(3), 'Looks at held-out prompts without a new best after which the run stops.'),
  minDelta: key(z.number().min(0).default(0), 'By how much a new best must be better.'),
});

/** Names of the rules among the rewards. */
const RULES = ['words', 'length', 'repetition', 'novelty', 'chinese', 'ending'] as const;

/** Refuses a run that rewards nothing. */
export function needRewards(
  config: { grpo: { rewards: RewardsConfig }; rm?: string | undefined },
  context: RefineContext,
): void {
  const { rewards } = config.grpo;
  if (config.rm !== undefined && rewards.model.weight !== 0) return;
  if (rewards.file.path !== undefined && rewards.file.weight !== 0) return;
  if (RULES.some((name) => rewards[name].weight !== 0)) return;
  const fix = 'give --rm DIR or --reward FILE, or weigh one of grpo.rewards';
  if (config.rm === undefined) refuse(context, ['rm'], 'is missing, and nothing else is rewarded', fix);
  else refuse(context, ['grpo', 'rewards', 'model', 'weight'], 'is 0, and nothing else is rewarded', fix);
}

export type RewardsConfig = z.output<typeof rewardsSection>;
