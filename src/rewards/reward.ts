/** A completion that is to be rewarded. */
export interface RewardRow {
  readonly prompt: string;
  /** What the model wrote, without special tokens. */
  readonly completion: string;
  /** Its tokens, EOS included. */
  readonly completionIds: readonly number[];
  /** `stop`: the model ended it; `length`: the limit did. */
  readonly finishReason: 'stop' | 'length';
  /** Name of the template that made the prompt. */
  readonly template: string;
  /** The words that the prompt asks for; none where it asks for none. */
  readonly words: readonly string[];
  /** The columns of the data row that the prompt was made of: `headline`, `word1`, `word2` and the others. */
  readonly fields: Readonly<Record<string, string>>;
}

/** One score a row, in their order; null where the reward does not apply. */
export type Scores = readonly (number | null)[];

/** Scores a batch of completions: those of one rollout, the completions of a prompt next to each other. */
export type Reward = (rows: readonly RewardRow[]) => Scores | Promise<Scores>;
