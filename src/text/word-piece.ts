import type { TokenizerConfig, TokenizerJson } from './tokenizer-files.js';

/** BERT's five, in the order of their ids in a vocabulary made here. */
export const BERT_SPECIAL_TOKENS = { pad: '[PAD]', unk: '[UNK]', cls: '[CLS]', sep: '[SEP]', mask: '[MASK]' } as const;

export const BERT_CONFIG = {
  tokenizer_class: 'BertTokenizer',
  do_lower_case: true,
  unk_token: BERT_SPECIAL_TOKENS.unk,
  sep_token: BERT_SPECIAL_TOKENS.sep,
  pad_token: BERT_SPECIAL_TOKENS.pad,
  cls_token: BERT_SPECIAL_TOKENS.cls,
  mask_token: BERT_SPECIAL_TOKENS.mask,
  tokenize_chinese_chars: true,
  strip_accents: null,
} as const satisfies TokenizerConfig;

/** What an added token is besides its content and id: matched as it stands, before normalisation. */
export const PLAIN_ADDED_TOKEN = { single_word: false, lstrip: false, rstrip: false, normalized: false } as const;

/**
 * The tokenizer.json of a BERT vocabulary (what a vocab.txt holds, in the order of ids): every CJK character is a word,
 * words are cut greedily into the longest known pieces, `[CLS] text [SEP]`. The config's special tokens and switches
 * count; what it leaves out is as in {@link BERT_CONFIG}.
 *
 * @throws Error when a token with a role is not in the vocabulary.
 */
export function wordPieceTokenizer(
  vocabulary: readonly string[],
  config: TokenizerConfig = BERT_CONFIG,
): TokenizerJson {
  const ids = new Map(vocabulary.map((token, id) => [token, id]));
  const tokenOf = (role: keyof typeof BERT_SPECIAL_TOKENS) => {
    const content = config[`${role}_token`] ?? BERT_SPECIAL_TOKENS[role];
    const id = ids.get(content);
    if (id === undefined) throw new Error(`the vocabulary lacks ${content}`);
    return { id, content };
  };
  const [cls, sep, unk] = [tokenOf('cls'), tokenOf('sep'), tokenOf('unk')];
  const around = (type_id: number, id: 'A' | 'B') => [{ Sequence: { id, type_id } }, piece(sep.content, type_id)];
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [tokenOf('pad'), unk, cls, sep, tokenOf('mask')]
      .map((token) => ({ ...token, ...PLAIN_ADDED_TOKEN, special: true }))
      .sort((a, b) => a.id - b.id),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: config.tokenize_chinese_chars ?? true,
      strip_accents: config.strip_accents ?? null,
      lowercase: config.do_lower_case ?? true,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [piece(cls.content, 0), ...around(0, 'A')],
      pair: [piece(cls.content, 0), ...around(0, 'A'), ...around(1, 'B')],
      special_tokens: Object.fromEntries(
        [cls, sep].map(({ id, content }) => [content, { id: content, ids: [id], tokens: [content] }]),
      ),
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: unk.content,
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(ids),
    },
  };
}

function piece(id: string, type_id: number): object {
  return { SpecialToken: { id, type_id } };
}
