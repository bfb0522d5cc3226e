import type { RandomStream } from '../random.js';
import type { Tokenizer } from '../text/tokenizer.js';

/** What hides a token from a classifier that learns. */
export interface HidingRule {
  /** Chance of each token. */
  readonly rate: number;
  readonly maskId: number;
  /** Ids that always stay: [CLS], [SEP], padding. */
  readonly special: ReadonlySet<number>;
}

/** @throws UserError when tokens are to be hidden and the tokenizer has no mask token */
export function hidingRule(tokenizer: Tokenizer, rate: number): HidingRule {
  const { pad, cls, sep } = tokenizer.special;
  return {
    rate,
    maskId: rate === 0 ? -1 : tokenizer.requireSpecial('mask', 'rm.tokenDropout'),
    special: new Set([pad, cls, sep].filter((id) => id !== undefined)),
  };
}

/**
 * Sequences of which every token is replaced by the mask token with the chance `rate`, as an encoder knows it from
 * masked-token prediction (word dropout: Iyyer et al. 2015, https://aclanthology.org/P15-1162).
 */
export function hideTokens(
  sequences: readonly (readonly number[])[],
  { rate, maskId, special }: HidingRule,
  random: RandomStream,
): readonly (readonly number[])[] {
  if (rate === 0) return sequences;
  return sequences.map((ids) => ids.map((id) => (!special.has(id) && random.uniform() < rate ? maskId : id)));
}
