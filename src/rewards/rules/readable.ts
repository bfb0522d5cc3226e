import { garbageReason } from '../../text/garbage.js';
import type { RewardRow, Scores } from '../reward.js';

/**
 * 1 for Chinese text that can be read, 0 for what the report counts as garbage: empty, broken characters, hardly
 * Chinese, or stuck in a repetition. It says nothing of sense, so random characters pass.
 */
export const readableChinese = (rows: readonly RewardRow[]): Scores =>
  rows.map(({ completion }) => (garbageReason(completion) === null ? 1 : 0));
