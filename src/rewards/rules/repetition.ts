import { characters } from '../../text/characters.js';
import type { RewardRow, Scores } from '../reward.js';

const N = 3;

/**
 * The share of a completion's 3-grams of characters that stand in it for the first time: 1 for a text that repeats
 * nothing, near 0 for one that is stuck. A policy cheats it with a text too short to repeat anything.
 */
export const noRepetition = (rows: readonly RewardRow[]): Scores =>
  rows.map(({ completion }) => {
    const points = characters(completion);
    const total = points.length - N + 1;
    if (total < 1) return 1;
    const different = new Set(Array.from({ length: total }, (_, i) => points.slice(i, i + N).join('')));
    return different.size / total;
  });
