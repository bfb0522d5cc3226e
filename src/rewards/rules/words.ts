import type { RewardRow, Scores } from '../reward.js';

/**
 * The share of the words that the prompt asks for which the completion uses; null where the prompt asks for none.
 * A policy cheats it by listing the words: weigh it below a reward that reads the text.
 */
export const usesWords = (rows: readonly RewardRow[]): Scores =>
  rows.map(({ completion, words }) =>
    words.length === 0 ? null : words.filter((word) => completion.includes(word)).length / words.length,
  );
