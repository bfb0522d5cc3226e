import { z } from 'zod';
import { alarmsSection } from './alarms.js';
import { key, refuse } from './key.js';
import { rewardsSection } from './rewards.js';
import { checkWarmup, count, trainingKeys } from './training.js';

export const LOSS_TYPES = ['grpo', 'bnpo', 'dr_grpo', 'dapo'] as const;
export type LossType = (typeof LOSS_TYPES)[number];

const training = trainingKeys(
  {
    learningRate: 1e-6,
    schedule: 'constant_with_warmup',
    warmupSteps: 50,
    warmupRatio: 0,
    weightDecay: 0,
    batchSize: 16,
    epochs: 2,
    loggingSteps: 10,
    evalSteps: 500,
    saveSteps: 100,
  },
  'Completions',
);

/**
 * Group relative policy optimization (Shao et al. 2024, https://arxiv.org/abs/2402.03300) with the published settings.
 *
 * The published run left the loss type at its trainer's default. Its loss stays negative (-0.036 to -0.028), which the
 * mean over sequences of `grpo` cannot do for long: advantages of a rollout sum to zero and KL is positive. So the run
 * averaged over tokens, and of the types that do, `dapo` is that trainer's default. The same rule, "the trainer's
 * default where nothing is published", gives `importanceSamplingLevel`, `scaleRewards`, `useBiasCorrectionKl` and
 * `maskTruncatedCompletions`.
 */
export const grpoSection = z
  .strictObject({
    ...training,
    numGenerations: key(count(2).default(4), 'Completions of one prompt: the group that an advantage is relative to.'),
    completionsPerRollout: key(
      count(2).default(64),
      'Completions written at once; batches of batchSize then learn from them.',
    ),
    numIterations: key(count().default(1), 'Times that a rollout is learned from.'),
    maxPromptLength: key(count().default(256), 'Longest prompt in tokens; a longer one is refused.'),
    maxCompletionLength: key(count().default(128), 'Most tokens of a completion.'),
    temperature: key(z.number().gt(0).default(0.8), 'Divides the logits, in rollouts and in the loss alike.'),
    topP: key(z.number().gt(0).max(1).default(0.95), 'Nucleus of the rollouts; 1 keeps all tokens.'),
    topK: key(count(0).default(0), 'Likeliest tokens kept in rollouts; 0 keeps all.'),
    beta: key(z.number().min(0).default(0.05), 'Weight of the KL to the reference; 0 computes no reference.'),
    epsilon: key(z.number().gt(0).lt(1).default(0.2), 'How far below 1 the probability ratio may move.'),
    epsilonHigh: key(z.number().gt(0).optional(), 'How far above 1 the ratio may move; epsilon if not given.'),
    lossType: key(
      z.enum(LOSS_TYPES).default('dapo'),
      "Average: grpo over sequences, bnpo over a batch's tokens, dr_grpo by the longest length, dapo over a rollout's tokens.",
    ),
    importanceSamplingLevel: key(
      z.enum(['token', 'sequence']).default('token'),
      'Whether the probability ratio belongs to each token or to the whole completion.',
    ),
    scaleRewards: key(
      z.enum(['group', 'batch', 'none']).default('group'),
      'Standard deviation that divides an advantage.',
    ),
    useBiasCorrectionKl: key(z.boolean().default(true), 'Multiply the KL by the probability ratio.'),
    maskTruncatedCompletions: key(z.boolean().default(false), 'Leave completions without EOS out of the loss.'),
    evalPrompts: key(count(0).default(64), 'Validation prompts whose mean reward is measured; 0 measures none.'),
    rewards: key(rewardsSection.prefault({}), 'What completions are rewarded for.'),
    alarms: key(alarmsSection.prefault({}), 'When to warn that a reward may be gamed.'),
  })
  .superRefine((grpo, context) => {
    checkWarmup(grpo, context);
    for (const part of ['numGenerations', 'batchSize'] as const) {
      if (grpo.completionsPerRollout % grpo[part] !== 0) {
        refuse(
          context,
          ['completionsPerRollout'],
          `is ${grpo.completionsPerRollout}, no multiple of ${part} (${grpo[part]})`,
          `take a multiple of numGenerations (${grpo.numGenerations}) and of batchSize (${grpo.batchSize})`,
        );
      }
    }
  });
