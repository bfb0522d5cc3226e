import type { RewardRow, Scores } from '../reward.js';

/** 1 for a completion that says something and ends by itself, with EOS; 0 for one that the limit cut, or an empty one. */
export const endsByItself = (rows: readonly RewardRow[]): Scores =>
  rows.map(({ completion, finishReason }) => (finishReason === 'stop' && completion.trim() !== '' ? 1 : 0));
