import { z } from 'zod';
import type { GrpoConfig } from '../../config/stages.js';
import type { Decoder } from '../../generation/decoder.js';
import { requireTokenizer, type Policy } from '../../generation/policy.js';
import { unfiltered } from '../../generation/sampling-settings.js';
import type { Scorer } from '../../generation/scorer.js';
import type { Tensor } from '../../graph/tensor.js';
import { stream } from '../../random.js';
import type { DeviceTensor } from '../../runtime/runtime.js';
import type { RewardRow } from '../../rewards/reward.js';
import type { Metrics } from '../../training/loop.js';
import { groupAdvantages, type RewardScores } from './advantages.js';
import type { RolloutSample } from './batch.js';
import { correctionMetrics } from './correction.js';
import { lossSettings } from './loss-settings.js';
import { completionMetrics } from './metrics.js';
import { oldLogProbs } from './old-log-probs.js';
import type { Scored } from './rewards.js';

type Weights = Readonly<Record<string, Tensor | DeviceTensor>>;

/** A prompt with its place in the data, which names its random streams. */
export interface RolloutPrompt {
  readonly index: number;
  readonly template: string;
  readonly prompt: string;
  /** The prompt as rewards read it: without the markup of a chat template. */
  readonly plainPrompt: string;
  /** The words that it asks for. */
  readonly words: readonly string[];
  /** Columns of its row. */
  readonly fields: Readonly<Record<string, string>>;
}

/** A completion as it is logged in `rollouts.jsonl`. */
export interface RolloutRecord {
  readonly template: string;
  readonly prompt: string;
  readonly completion: string;
  /** The weighted sum of its scores; null where no reward applies. */
  readonly reward: number | null;
  /** The scores by the names of their rewards, where there are several. */
  readonly rewards?: Readonly<Record<string, number | null>>;
  readonly advantage: number;
  readonly tokens: number;
  readonly finishReason: 'stop' | 'length';
}

/** What writes and measures completions during a run. */
export interface RolloutTools {
  readonly policy: Policy;
  readonly decoder: Pick<Decoder, 'generate'>;
  readonly scorer: Scorer;
  reward(rows: readonly RewardRow[]): Promise<Scored>;
  /** Current weights of the adapter that learns. */
  readonly adapter: Weights;
  /** An adapter that changes nothing: the reference. */
  readonly reference: Weights;
}

export interface Rollout {
  readonly samples: readonly RolloutSample[];
  readonly records: readonly RolloutRecord[];
  /** What was rewarded, in the order of the records. */
  readonly rows: readonly RewardRow[];
  readonly metrics: Metrics;
  /** Share of completions that the reward model rates above held-out jokes; absent where that is not known. */
  readonly beyondHuman?: number | undefined;
  readonly tokens: number;
}

/**
 * Writes a group of completions for each prompt, rewards them, and measures what the loss needs: advantages relative to
 * the group, and log-probabilities by the policy as it is now (the sampler's own, where they are the same) and by the
 * reference. Every completion has a random stream of its own, named by (seed, rollout, prompt, sample). Once the signal
 * is aborted it gives up by throwing the reason.
 *
 * @param limits `atOnce` completions are measured at once where that is fewer than configured, and as many times fewer
 *   written at once
 */
export async function rollOut(
  prompts: readonly RolloutPrompt[],
  number: number,
  tools: RolloutTools,
  config: GrpoConfig,
  limits: { readonly atOnce?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<Rollout> {
  const { grpo, seed } = config;
  const { signal } = limits;
  const configured = grpo.microBatchSize ?? grpo.batchSize;
  const { atOnce = configured } = limits;
  const share = atOnce / configured;
  const tokenizer = requireTokenizer(tools.policy);
  const group = prompts.flatMap((prompt) => {
    const ids = tokenizer.encode(prompt.prompt);
    return Array.from({ length: grpo.numGenerations }, (_, sample) => ({ ...prompt, ids, sample }));
  });
  const completions = await tools.decoder.generate(
    group.map(({ ids }) => ids),
    {
      eosTokenIds: tools.policy.eosTokenIds,
      padTokenId: tools.policy.padTokenId,
      maxNewTokens: grpo.maxCompletionLength,
      sampling: { ...unfiltered, temperature: grpo.temperature, topP: grpo.topP, topK: grpo.topK },
      batchSize: Math.ceil((grpo.completionsAtOnce ?? grpo.completionsPerRollout) * share),
      random: (i) => stream(seed, 'rollout', number, group[i]!.index, group[i]!.sample),
      adapter: tools.adapter,
      signal,
    },
  );
  const texts = completions.map(({ ids }) => tokenizer.decode(ids, { skipSpecialTokens: true }));
  signal?.throwIfAborted();
  const rows = completions.map(({ ids, finishReason }, i): RewardRow => {
    const { plainPrompt: prompt, template, words, fields } = group[i]!;
    return { prompt, completion: texts[i]!, completionIds: ids, finishReason, template, words, fields };
  });
  const scored = await tools.reward(rows);
  const { advantages, rewards, metrics } = groupAdvantages(scored.rewards, {
    groupSize: grpo.numGenerations,
    scaleRewards: grpo.scaleRewards,
    aggregation: grpo.rewards.aggregation,
  });

  const sequences = completions.map(({ ids }, i) => ({
    inputIds: [...group[i]!.ids, ...ids],
    completionMask: [...group[i]!.ids.map(() => 0 as const), ...ids.map(() => 1 as const)],
  }));
  const scoring = {
    temperature: grpo.temperature,
    batchSize: atOnce,
    signal,
  };
  const old = await oldLogProbs(
    completions.map(({ logProbs }) => logProbs),
    (some) =>
      tools.scorer.logProbabilities(
        some.map((i) => sequences[i]!),
        { ...scoring, adapter: tools.adapter },
      ),
    grpo.samplerTolerance,
  );
  const ref =
    grpo.beta === 0
      ? undefined
      : await tools.scorer.logProbabilities(sequences, { ...scoring, adapter: tools.reference });

  const samples = completions.map(({ ids, finishReason }, i): RolloutSample => ({
    promptIds: group[i]!.ids,
    completionIds: ids,
    advantage: advantages[i]!,
    oldLogProbs: old.policy[i]!,
    ...(old.sampler === undefined ? {} : { samplerLogProbs: old.sampler[i]! }),
    ...(ref === undefined ? {} : { refLogProbs: [...ref[i]!] }),
    learned: finishReason === 'stop' || !grpo.maskTruncatedCompletions,
  }));
  const records = completions.map(({ ids, finishReason }, i): RolloutRecord => ({
    template: group[i]!.template,
    prompt: group[i]!.prompt,
    completion: texts[i]!,
    reward: Number.isNaN(rewards[i]!) ? null : rewards[i]!,
    ...(scored.rewards.length > 1 ? { rewards: scoresOf(scored.rewards, i) } : {}),
    advantage: advantages[i]!,
    tokens: ids.length,
    finishReason,
  }));
  const ended = completions.map(({ ids, finishReason }) => ({ ids, terminated: finishReason === 'stop' }));
  return {
    samples,
    records,
    rows,
    metrics: {
      ...completionMetrics(ended),
      ...metrics,
      ...scored.metrics,
      ...old.metrics,
      ...correctionMetrics(samples, lossSettings(grpo).rolloutCorrection),
    },
    beyondHuman: scored.beyondHuman,
    tokens: sequences.reduce((total, { inputIds }) => total + inputIds.length, 0),
  };
}

const scoresOf = (rewards: readonly RewardScores[], i: number): Record<string, number | null> =>
  Object.fromEntries(rewards.map(({ name, scores }) => [name, scores[i] ?? null]));

/** A rollout in mid-use, as a checkpoint keeps it. */
export const samplesSchema = z.array(
  z.object({
    promptIds: z.array(z.int()),
    completionIds: z.array(z.int()),
    advantage: z.number(),
    oldLogProbs: z.array(z.number()),
    refLogProbs: z.array(z.number()).optional(),
    samplerLogProbs: z.array(z.number()).optional(),
    learned: z.boolean(),
  }),
);
