import { z } from 'zod';
import { answered, unanswered } from './messages.js';

/** What `generate`, `score` and `classify` take and give, one JSON object a line; `input_ids` on the wire is `inputIds` here. */

/** Where an input was read, `file:line`, so that an error can say so. */
interface Placed {
  readonly where?: string;
}

/** How an error names one of several inputs. */
export const placeOfInput = ({ where }: Placed, index: number): string => where ?? `input ${index + 1}`;

const text = z.string();
const nonEmpty = z.string().min(1);
const ids = z.array(z.int().min(0)).min(1);

const givenIds = z.object({ input_ids: ids }).transform(({ input_ids }) => ({ inputIds: input_ids }));

export const generateInput = z.union([
  givenIds,
  z.object({ prompt: nonEmpty }),
  z.object({ headline: nonEmpty }),
  z.object({ words: z.tuple([nonEmpty, nonEmpty]) }),
  z.object({ messages: unanswered }),
]);
export type GenerateInput = z.output<typeof generateInput> & Placed;

export const scoreInput = z.union([
  z
    .object({ input_ids: ids, completion_mask: z.array(z.union([z.literal(0), z.literal(1)])) })
    .refine(
      (line) => line.input_ids.length === line.completion_mask.length,
      'input_ids and completion_mask differ in length',
    )
    .transform((line) => ({ inputIds: line.input_ids, completionMask: line.completion_mask })),
  z.object({ prompt: text, completion: nonEmpty }),
  z.object({ messages: answered }),
]);
export type ScoreInput = z.output<typeof scoreInput> & Placed;

export const classifyInput = z.union([givenIds, z.object({ text }), z.object({ prompt: text, completion: text })]);
export type ClassifyInput = z.output<typeof classifyInput> & Placed;

/** One text that was written; the text fields are absent where the model folder has no tokenizer. */
export interface GenerateOutput {
  readonly prompt?: string;
  readonly completion?: string;
  readonly completionIds: readonly number[];
  /** `stop`: the model ended it; `length`: the limit did. */
  readonly finishReason: 'stop' | 'length';
  /** Logit of "humorous" by the reward model, where one was given. */
  readonly reward?: number;
}

/** Natural log-probabilities at temperature 1, one per completion token. */
export interface ScoreOutput {
  readonly logprobs: readonly number[];
  readonly sum: number;
  readonly mean: number;
  readonly tokens: number;
}

export interface ClassifyOutput {
  readonly logits: readonly number[];
  /** Probability of "humorous". */
  readonly probability: number;
}
