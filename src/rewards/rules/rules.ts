import type { RewardsConfig } from '../../config/rewards.js';
import type { CopyIndex } from '../../text/copy-index.js';
import type { RewardRow, Scores } from '../reward.js';
import { endsByItself } from './ending.js';
import { lengthBand } from './length-band.js';
import { novelty } from './novelty.js';
import { readableChinese } from './readable.js';
import { noRepetition } from './repetition.js';
import { usesWords } from './words.js';

/** A reward that is computed by a rule, without a model. */
export interface RuleReward {
  readonly name: string;
  readonly weight: number;
  readonly score: (rows: readonly RewardRow[]) => Scores;
}

/** Every rule of the settings, those of weight 0 too. */
export function ruleRewards(settings: RewardsConfig, training: CopyIndex): RuleReward[] {
  const { words, length, repetition, novelty: copying, chinese, ending } = settings;
  return [
    { name: 'words', weight: words.weight, score: usesWords },
    { name: 'length', weight: length.weight, score: lengthBand(length) },
    { name: 'repetition', weight: repetition.weight, score: noRepetition },
    { name: 'novelty', weight: copying.weight, score: novelty(training) },
    { name: 'chinese', weight: chinese.weight, score: readableChinese },
    { name: 'ending', weight: ending.weight, score: endsByItself },
  ];
}
