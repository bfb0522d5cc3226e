import { UserError } from '../errors.js';
import { learnMerges } from './learn-merges.js';
import { createLibraryTokenizer } from './library.js';
import type { TokenizerFiles, TokenizerJson } from './tokenizer-files.js';
import { PLAIN_ADDED_TOKEN } from './word-piece.js';

export interface BpeOptions {
  /** At most this many entries, the 256 bytes and the special tokens included. */
  readonly vocabSize: number;
  /** In the order of their ids, which come after all others. */
  readonly specialTokens: readonly string[];
  /** The special token that ends a text. Default the first. */
  readonly eosToken?: string;
  /** The special token that fills up batches. Default the last. */
  readonly padToken?: string;
  /** A pair that occurs less often is not merged. Default 2. */
  readonly minCount?: number;
}

/**
 * How Qwen2 and Qwen3 cut text into words before merging, as their published tokenizer.json states it: English
 * contractions, letters with one preceding sign, single digits, runs of signs, line breaks, spaces.
 */
const QWEN_SPLIT =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/**
 * Trains a byte-level BPE tokenizer of Qwen's kind: NFC, Qwen's split, every byte a token, so that any text comes back
 * as it was (in NFC). The same texts give the same tokenizer, in any order.
 *
 * @throws UserError when `vocabSize` has no room for the bytes and special tokens, or a role names no special token.
 */
export function trainByteLevelBpe(texts: Iterable<string>, options: BpeOptions): TokenizerFiles {
  const { vocabSize, specialTokens, minCount = 2 } = options;
  const alphabet = byteCharacters().sort();
  const least = alphabet.length + specialTokens.length;
  if (vocabSize < least) {
    throw new UserError({
      code: 'tokenizer.vocab-too-small',
      message: `A vocabulary of ${vocabSize} has no room for the bytes and special tokens (${least}).`,
      where: 'vocabSize',
      fix: `Choose at least ${least}; Chinese text needs some thousands.`,
    });
  }
  const { tokens, merges } = learnMerges(countWords(texts), alphabet, vocabSize - specialTokens.length, minCount);
  return {
    tokenizer: byteLevelTokenizer(tokens, merges, specialTokens),
    config: {
      eos_token: role('eosToken', options.eosToken ?? specialTokens[0], specialTokens),
      pad_token: role('padToken', options.padToken ?? specialTokens.at(-1), specialTokens),
      padding_side: 'right',
      tokenizer_class: 'PreTrainedTokenizerFast',
    },
  };
}

function role(name: string, token: string | undefined, specialTokens: readonly string[]): string {
  if (token !== undefined && specialTokens.includes(token)) return token;
  throw new UserError({
    code: 'tokenizer.missing-special-token',
    message: token === undefined ? 'There is no special token.' : `"${token}" is not one of the special tokens.`,
    where: name,
    fix: `Add it to specialTokens (${specialTokens.join(', ') || 'none now'}).`,
  });
}

function byteLevelTokenizer(
  tokens: readonly string[],
  merges: readonly (readonly [string, string])[],
  specialTokens: readonly string[],
): TokenizerJson {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, i) => ({
      id: tokens.length + i,
      content,
      ...PLAIN_ADDED_TOKEN,
      special: true,
    })),
    normalizer: { type: 'NFC' },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: QWEN_SPLIT }, behavior: 'Isolated', invert: false },
        byteLevel,
      ],
    },
    post_processor: byteLevel,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}

/** Words as the tokenizer cuts them, a character for each byte, sorted so that the order of the texts does not matter. */
function countWords(texts: Iterable<string>): Map<string, number> {
  const { normalizer, pre_tokenizer } = createLibraryTokenizer(byteLevelTokenizer([], [], []));
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const word of pre_tokenizer!.pre_tokenize(normalizer!.normalize(text))) {
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return new Map([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * The character that stands for each byte in a byte-level vocabulary, by byte. Bytes that print in Latin-1 stand for
 * themselves; the others take the code points from 256 on. Reference: Radford et al. 2019 (GPT-2).
 */
function byteCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(prints ? byte : next++);
  });
}
