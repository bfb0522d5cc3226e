import { z } from 'zod';

const id = z.int().nonnegative();

const knownPattern = z.union([z.looseObject({ Regex: z.string() }), z.looseObject({ String: z.string() })]);

/** The library leaves a pattern of a kind that it does not know out, and tokens are others. */
function patternsAreKnown(step: unknown): boolean {
  const open = [step];
  while (open.length > 0) {
    const part = open.pop();
    if (typeof part !== 'object' || part === null) continue;
    if ('pattern' in part && !knownPattern.safeParse(part.pattern).success) return false;
    for (const value of Object.values(part)) open.push(value);
  }
  return true;
}

/** A normalizer, pre-tokenizer or decoder, with those that it is made of. */
const steps = z.unknown().refine(patternsAreKnown, 'a pattern is neither a Regex nor a String');

/** tokenizer.json, as far as this project reads it; the rest passes through to the tokenizer library. */
export const tokenizerJsonSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({ id, content: z.string(), special: z.boolean().optional() })).default([]),
  // Only a Unigram model has an array of [token, score].
  model: z.looseObject({
    type: z.enum(['BPE', 'WordPiece', 'WordLevel', 'Unigram']).optional(),
    vocab: z.union([z.record(z.string(), id), z.array(z.tuple([z.string(), z.number()]))]),
    unk_token: z.string().nullish(),
  }),
  normalizer: steps.default(null),
  pre_tokenizer: steps.default(null),
  post_processor: z.unknown().default(null),
  decoder: steps.default(null),
});
export type TokenizerJson = z.infer<typeof tokenizerJsonSchema>;

const specialToken = z
  .union([z.string(), z.looseObject({ content: z.string() }).transform(({ content }) => content)])
  .nullish();

/** tokenizer_config.json or special_tokens_map.json, as far as this project reads them. */
export const tokenizerConfigSchema = z.looseObject({
  pad_token: specialToken,
  eos_token: specialToken,
  unk_token: specialToken,
  cls_token: specialToken,
  sep_token: specialToken,
  mask_token: specialToken,
  bos_token: specialToken,
  model_max_length: z.number().positive().nullish(),
  do_lower_case: z.boolean().nullish(),
  tokenize_chinese_chars: z.boolean().nullish(),
  strip_accents: z.boolean().nullish(),
});
export type TokenizerConfig = z.infer<typeof tokenizerConfigSchema>;

/** A tokenizer that was made here: the contents of its files. */
export interface TokenizerFiles {
  /** tokenizer.json */
  readonly tokenizer: TokenizerJson;
  /** tokenizer_config.json */
  readonly config: TokenizerConfig;
  /** vocab.txt, one token a line in the order of ids; WordPiece only. */
  readonly vocabText?: string;
}

/** File name → content, ready to be written into a model folder. */
export function serializeTokenizer({ tokenizer, config, vocabText }: TokenizerFiles): Record<string, string> {
  return {
    'tokenizer.json': `${JSON.stringify(tokenizer, null, 2)}\n`,
    'tokenizer_config.json': `${JSON.stringify(config, null, 2)}\n`,
    ...(vocabText !== undefined && { 'vocab.txt': vocabText }),
  };
}
