import type { CopyIndex } from '../../text/copy-index.js';
import type { RewardRow, Scores } from '../reward.js';

/**
 * The share of a completion's characters that do not stand in a training joke in a stretch of 8 or more. A policy cheats
 * it by changing a character in eight, and by nonsense, which nobody wrote before.
 */
export const novelty =
  (training: CopyIndex) =>
  (rows: readonly RewardRow[]): Scores =>
    rows.map(({ completion }) => 1 - training.copiedShare(completion));
