import { z } from 'zod';
import { meanInterval, pairedDifferenceInterval, type Interval } from './bootstrap.js';
import { characters } from '../text/characters.js';
import { splitGainByLength } from './length-split.js';
import { summarizeTexts } from './text-metrics.js';

/** One text that a model wrote to an unseen prompt, and its reward. */
export const textRecord = z.object({
  model: z.string(),
  template: z.string(),
  prompt: z.string(),
  /** Words that the prompt asked for. */
  words: z.array(z.string()).optional(),
  /** Which of the texts to this prompt. */
  sample: z.int(),
  completion: z.string(),
  tokens: z.int(),
  finishReason: z.enum(['stop', 'length']),
  reward: z.number(),
});
export type TextRecord = z.infer<typeof textRecord>;

const interval = z.object({
  estimate: z.number(),
  low: z.number(),
  high: z.number(),
  level: z.number(),
  rows: z.int(),
});

/** What a comparison of models on the same unseen prompts came to. */
export const comparisonSchema = z.object({
  prompts: z.int(),
  samplesPerPrompt: z.int(),
  models: z.array(
    z.object({
      name: z.string(),
      /** Mean reward; prompts are resampled, the texts to one of them together. */
      reward: interval,
      eosShare: z.number(),
      summary: z.object({
        texts: z.int(),
        meanLength: z.number(),
        distinct1: z.number(),
        distinct2: z.number(),
        distinct3: z.number(),
        selfSimilarity: z.number().nullable(),
        garbageShare: z.number(),
        bothWordsShare: z.number().nullable(),
        copiedShare: z.number().nullable(),
      }),
    }),
  ),
  /** Each model against the one before it. */
  steps: z.array(
    z.object({
      before: z.string(),
      after: z.string(),
      difference: interval,
      length: z.object({
        slope: z.number(),
        r2: z.number(),
        meanLengthBefore: z.number(),
        meanLengthAfter: z.number(),
        gain: interval,
        explainedByLength: z.number(),
        rest: interval,
        share: z.number().nullable(),
      }),
    }),
  ),
});
export type Comparison = z.infer<typeof comparisonSchema>;

export interface CompareOptions {
  readonly seed: number;
  readonly resamples: number;
  /** Texts that copying is measured against. */
  readonly training: readonly string[];
}

/**
 * Compares models that wrote to the same prompts, in the order in which they were trained. The unit that is resampled is
 * the prompt: rewards and lengths of the texts to one prompt are averaged first.
 *
 * @throws RangeError when two models did not write to the same prompts
 */
export function compareModels(
  records: readonly TextRecord[],
  { seed, resamples, training }: CompareOptions,
): Comparison {
  const names = [...new Set(records.map(({ model }) => model))];
  const options = { seed, resamples };
  const prompts = [...new Set(records.filter(({ model }) => model === names[0]).map(({ prompt }) => prompt))];
  const perPrompt = new Map(
    names.map((name) => {
      const own = records.filter(({ model }) => model === name);
      return [name, averagesByPrompt(own, prompts)];
    }),
  );
  const models = names.map((name) => {
    const own = records.filter(({ model }) => model === name);
    return {
      name,
      reward: meanInterval(
        perPrompt.get(name)!.map(({ reward }) => reward),
        options,
      ),
      eosShare: own.filter(({ finishReason }) => finishReason === 'stop').length / own.length,
      summary: summarizeTexts(
        own.map(({ completion, words }) => ({ text: completion, words })),
        { training, seed },
      ),
    };
  });
  const steps = names.slice(1).map((after, i) => {
    const before = names[i]!;
    const [old, fresh] = [perPrompt.get(before)!, perPrompt.get(after)!];
    const difference: Interval = pairedDifferenceInterval(
      old.map(({ reward }) => reward),
      fresh.map(({ reward }) => reward),
      options,
    );
    return { before, after, difference, length: splitGainByLength(old, fresh, options) };
  });
  const samplesPerPrompt = prompts.length === 0 ? 0 : models[0]!.summary.texts / prompts.length;
  return { prompts: prompts.length, samplesPerPrompt, models, steps };
}

/** Mean reward and length (in characters) of the texts to each of the prompts. */
function averagesByPrompt(
  records: readonly TextRecord[],
  prompts: readonly string[],
): { reward: number; length: number }[] {
  const groups = new Map<string, TextRecord[]>();
  for (const record of records) {
    const group = groups.get(record.prompt);
    if (group === undefined) groups.set(record.prompt, [record]);
    else group.push(record);
  }
  if (groups.size !== prompts.length) {
    throw new RangeError(`the models wrote to ${groups.size} and ${prompts.length} prompts, not to the same`);
  }
  return prompts.map((prompt) => {
    const group = groups.get(prompt);
    if (group === undefined) throw new RangeError(`${records[0]!.model} wrote nothing to the prompt ${prompt}`);
    return {
      reward: group.reduce((total, { reward }) => total + reward, 0) / group.length,
      length: group.reduce((total, { completion }) => total + characters(completion).length, 0) / group.length,
    };
  });
}
