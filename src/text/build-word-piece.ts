import { UserError } from '../errors.js';
import { createLibraryTokenizer } from './library.js';
import type { TokenizerFiles } from './tokenizer-files.js';
import { BERT_CONFIG, BERT_SPECIAL_TOKENS, wordPieceTokenizer } from './word-piece.js';

export interface WordPieceOptions {
  /** At most this many entries, the five special tokens included. */
  readonly vocabSize: number;
  /** Characters that occur less often become [UNK]. Default 1. */
  readonly minCount?: number;
  /** What the model can take at most; recorded in tokenizer_config.json. Default 512. */
  readonly maxLength?: number;
}

/**
 * A vocabulary of characters in the style of BERT's Chinese one: the special tokens, printable ASCII (letters and digits
 * also as continuations, `##a`), then the characters of `texts` from the most to the least frequent (ties by code point).
 *
 * @throws UserError when `vocabSize` has no room for the special tokens and ASCII.
 */
export function buildWordPiece(texts: Iterable<string>, options: WordPieceOptions): TokenizerFiles {
  const { vocabSize, minCount = 1, maxLength = 512 } = options;
  const base = [...Object.values(BERT_SPECIAL_TOKENS), ...asciiPieces()];
  if (vocabSize < base.length) {
    throw new UserError({
      code: 'tokenizer.vocab-too-small',
      message: `A vocabulary of ${vocabSize} has no room for the special tokens and ASCII (${base.length}).`,
      where: 'vocabSize',
      fix: `Choose at least ${base.length}; Chinese text needs some thousands.`,
    });
  }
  const known = new Set(base);
  const frequent = [...countPieces(texts)]
    .filter(([piece, count]) => count >= minCount && !known.has(piece))
    .sort(([a, countA], [b, countB]) => countB - countA || (a < b ? -1 : 1))
    .map(([piece]) => piece);
  const vocabulary = [...base, ...frequent].slice(0, vocabSize);
  return {
    tokenizer: wordPieceTokenizer(vocabulary),
    config: { ...BERT_CONFIG, model_max_length: maxLength },
    vocabText: vocabulary.map((token) => `${token}\n`).join(''),
  };
}

function countPieces(texts: Iterable<string>): Map<string, number> {
  // Words are found by the very tokenizer that is being made, only without its vocabulary.
  const { normalizer, pre_tokenizer } = createLibraryTokenizer(wordPieceTokenizer(Object.values(BERT_SPECIAL_TOKENS)));
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const word of pre_tokenizer!.pre_tokenize(normalizer!.normalize(text))) {
      let prefix = '';
      for (const character of word) {
        const piece = prefix + character;
        counts.set(piece, (counts.get(piece) ?? 0) + 1);
        prefix = '##';
      }
    }
  }
  return counts;
}

/** Lower case only, as the normaliser leaves nothing else. */
function asciiPieces(): string[] {
  const printable = Array.from({ length: 0x7f - 0x21 }, (_, i) => String.fromCharCode(0x21 + i));
  const pieces = printable.filter((character) => character === character.toLowerCase());
  return [...pieces, ...pieces.filter((character) => /[a-z0-9]/u.test(character)).map((character) => `##${character}`)];
}
