import { z } from 'zod';
import { alarmsSection } from './alarms.js';
import { checkLoss, lossKeys } from './grpo-loss.js';
import { key, refuse, type RefineContext } from './key.js';
import { earlyStoppingSection, rewardsSection } from './rewards.js';
import { checkWarmup, count, trainingKeys } from './training.js';

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
    batchSize: key(count().default(16), 'Completions that the loss is averaged over.'),
    gradientAccumulationSteps: key(count().default(1), 'Batches whose gradients make one step.'),
    microBatchSize: key(
      count().optional(),
      'Completions in one forward and backward pass, batchSize if not given; fewer need less memory and change nothing else.',
    ),
    numGenerations: key(count(2).default(4), 'Completions of one prompt: the group that an advantage is relative to.'),
    completionsPerRollout: key(
      count(2).default(64),
      'Completions written before batches of batchSize learn from them.',
    ),
    completionsAtOnce: key(
      count().optional(),
      'Of these, how many are being written at the same time, all if not given; fewer need less memory for keys and values.',
    ),
    numIterations: key(count().default(1), 'Times that a rollout is learned from.'),
    maxPromptLength: key(count().default(256), 'Longest prompt in tokens; a longer one is refused.'),
    maxCompletionLength: key(count().default(128), 'Most tokens of a completion.'),
    temperature: key(z.number().gt(0).default(0.8), 'Divides the logits, in rollouts and in the loss alike.'),
    topP: key(z.number().gt(0).max(1).default(0.95), 'Nucleus of the rollouts; 1 keeps all tokens.'),
    topK: key(count(0).default(0), 'Likeliest tokens kept in rollouts; 0 keeps all.'),
    samplerQuantization: key(
      z.enum(['float32', 'int8', 'int4', 'nf4']).optional(),
      'How the base multiplies where completions are written; as in training if not given, but nf4 with its values in bytes.',
    ),
    samplerTolerance: key(
      z.number().min(0).default(0.02),
      "Root mean square difference in nats up to which the sampler's log-probabilities count as the policy's; 0 computes all anew.",
    ),
    ...lossKeys,
    scaleRewards: key(
      z.enum(['group', 'batch', 'none']).default('group'),
      'Standard deviation that divides an advantage.',
    ),
    evalPrompts: key(count(0).default(64), 'Validation prompts whose mean reward is measured; 0 measures none.'),
    rewards: key(rewardsSection.prefault({}), 'What completions are rewarded for.'),
    earlyStopping: key(
      earlyStoppingSection.prefault({}),
      'When to stop early; the adapter is then the best, not the last.',
    ),
    alarms: key(alarmsSection.prefault({}), 'When to warn that a reward may be gamed.'),
  })
  .superRefine((grpo, context) => {
    checkWarmup(grpo, context);
    checkLoss(grpo, context);
    checkBatches(grpo, context);
    if (grpo.earlyStopping.criterion === 'none' || grpo.evalPrompts > 0) return;
    const message = `is ${grpo.earlyStopping.criterion}, but no held-out prompt is looked at`;
    refuse(context, ['earlyStopping', 'criterion'], message, 'raise evalPrompts, or set it to none');
  });

interface Batches {
  numGenerations: number;
  completionsPerRollout: number;
  batchSize: number;
  gradientAccumulationSteps: number;
  microBatchSize?: number | undefined;
  topEntropyQuantile: number;
}

/** Refuses a rollout that does not fill its groups and steps, and a batch that does not fill its micro-batches. */
function checkBatches(grpo: Batches, context: RefineContext): void {
  const { completionsPerRollout, numGenerations, batchSize, gradientAccumulationSteps, microBatchSize } = grpo;
  const perStep = batchSize * gradientAccumulationSteps;
  const step =
    gradientAccumulationSteps === 1
      ? `batchSize (${batchSize})`
      : `batchSize × gradientAccumulationSteps (${batchSize} × ${gradientAccumulationSteps})`;
  for (const [size, name] of [
    [numGenerations, `numGenerations (${numGenerations})`],
    [perStep, step],
  ] as const) {
    if (completionsPerRollout % size === 0) continue;
    refuse(
      context,
      ['completionsPerRollout'],
      `is ${completionsPerRollout}, no multiple of ${name}`,
      `take a multiple of numGenerations (${numGenerations}) and of ${step}`,
    );
  }
  if (microBatchSize === undefined) return;
  if (batchSize % microBatchSize !== 0) {
    const message = `is ${microBatchSize}, which does not divide batchSize (${batchSize})`;
    refuse(context, ['microBatchSize'], message, 'take a divisor of batchSize');
  } else if (microBatchSize < batchSize && grpo.topEntropyQuantile < 1) {
    const message = `is ${microBatchSize}, but topEntropyQuantile ranks the tokens of a whole batch (${batchSize}) at once`;
    refuse(context, ['microBatchSize'], message, 'leave it out; lower batchSize and raise gradientAccumulationSteps');
  }
}
