import * as library from '@huggingface/tokenizers';
import { z } from 'zod';
import type { TokenizerJson } from './tokenizer-files.js';

/** What this project uses of the tokenizer library's class. */
export interface LibraryTokenizer {
  readonly normalizer: { normalize(text: string): string } | null;
  readonly pre_tokenizer: { pre_tokenize(text: string): string[] } | null;
  readonly post_processor: {
    post_process(tokens: string[], pair: string[] | null, addSpecialTokens: boolean): PostProcessed;
  } | null;
  /** A word that is not in the vocabulary of a model without an unknown token has no id. */
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[]; tokens: string[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

interface PostProcessed {
  readonly tokens: readonly string[];
  readonly token_type_ids?: readonly number[];
}

// The library's declarations import without file endings, which NodeNext resolution cannot follow.
const { Tokenizer } = library as unknown as { Tokenizer: new (json: object, config: object) => LibraryTokenizer };

/** CJK ideographs outside the Basic Multilingual Plane, as BERT lists them. */
const SUPPLEMENTARY_CJK =
  /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

const bertNormalizer = z.object({ type: z.literal('BertNormalizer'), handle_chinese_chars: z.literal(true) });

/**
 * What must be done to a text before the library encodes it. BERT makes every ideograph a word of its own, but the
 * library looks at UTF-16 units and so misses those outside the Basic Multilingual Plane.
 */
export function createPreparation({ normalizer }: TokenizerJson): (text: string) => string {
  if (!bertNormalizer.safeParse(normalizer).success) return (text) => text;
  return (text) => text.replace(SUPPLEMENTARY_CJK, ' $& ');
}

/**
 * A tokenizer of the library. It would take some behaviour from tokenizer_config.json that tokenizer.json alone should
 * decide, so of a config it is told only the unknown token, which it does not read from a word-level model.
 *
 * @throws Error when a part of `json` is of a kind the library does not know.
 */
export function createLibraryTokenizer(json: TokenizerJson): LibraryTokenizer {
  return new Tokenizer(json, { unk_token: json.model.unk_token });
}
