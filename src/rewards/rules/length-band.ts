import { characters } from '../../text/characters.js';
import type { RewardRow, Scores } from '../reward.js';

/**
 * 1 for a completion of `min` to `max` characters; below it falls with the length to 0 at an empty text, above it to 0
 * at twice `max`. It has a slope everywhere outside, so that a group of short texts still learns to grow.
 * A policy cheats it by padding up to `min`.
 */
export const lengthBand =
  ({ min, max }: { min: number; max: number }) =>
  (rows: readonly RewardRow[]): Scores =>
    rows.map(({ completion }) => {
      const length = characters(completion.trim()).length;
      if (length < min) return length / min;
      return length <= max ? 1 : Math.max(0, 2 - length / max);
    });
