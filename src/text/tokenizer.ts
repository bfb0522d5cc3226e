import { UserError } from '../errors.js';
import { createLibraryTokenizer, createPreparation, type LibraryTokenizer } from './library.js';
import type { TokenizerConfig, TokenizerJson } from './tokenizer-files.js';

const ROLES = ['pad', 'eos', 'unk', 'cls', 'sep', 'mask', 'bos'] as const;
export type SpecialRole = (typeof ROLES)[number];

export interface EncodeOptions {
  /** Whether to add what the tokenizer's template puts around a text, such as [CLS] and [SEP]. Default true. */
  readonly addSpecialTokens?: boolean;
  /** Cuts the end of the text so that it and the added tokens have at most this many. */
  readonly maxLength?: number;
}

export interface PairEncoding {
  readonly ids: number[];
  /** 0 for the first text and what is added to it, 1 for the second. */
  readonly typeIds: number[];
}

/** Where the template puts its own tokens: ids, and the texts as `first` and `second`. */
type Template = readonly { readonly piece: number | 'first' | 'second'; readonly typeId: number }[];

/** transformers writes 1e30 where it knows no longest sequence. */
const NO_LIMIT = 1e9;

// Cannot be tokens: U+FFFF is a noncharacter.
const FIRST = '\uffff1';
const SECOND = '\uffff2';

/**
 * A tokenizer.json. Text goes to ids and back exactly as in Hugging Face's tokenizers; unlike there, nothing is
 * truncated or padded unless asked for, and decoding never tidies spaces.
 */
export class Tokenizer {
  /** Highest id + 1; a model's vocabulary must be at least this large. */
  readonly vocabSize: number;
  /** The ids of the tokens that tokenizer_config.json gives a role, where they exist. */
  readonly special: Readonly<Partial<Record<SpecialRole, number>>>;
  /** Longest sequence in tokens that tokenizer_config.json names; Infinity where it names none. */
  readonly modelMaxLength: number;
  readonly #library: LibraryTokenizer;
  readonly #prepare: (text: string) => string;
  readonly #single: Template;
  readonly #pair: Template;

  /** @throws Error when the parts of `json` are of kinds the library does not know; {@link loadTokenizer} words it. */
  constructor(json: TokenizerJson, config: TokenizerConfig) {
    this.#library = createLibraryTokenizer(json);
    this.#prepare = createPreparation(json);
    this.vocabSize = 1 + highestId(json);
    this.special = findSpecialIds(this.#library, json, config);
    const told = config.model_max_length ?? Infinity;
    this.modelMaxLength = told < NO_LIMIT ? told : Infinity;
    this.#single = this.#readTemplate(null);
    this.#pair = this.#readTemplate([SECOND]);
  }

  /** The ids of one text. */
  encode(text: string, { addSpecialTokens = true, maxLength = Infinity }: EncodeOptions = {}): number[] {
    const ids = this.#encodeBare(text);
    if (!addSpecialTokens) return ids.slice(0, maxLength);
    const room = Math.max(0, maxLength - this.#single.length + 1);
    return fill(this.#single, ids.slice(0, room), []).ids;
  }

  /** The ids of two texts in one sequence; when they are too long, the longer one is cut first. */
  encodeTwo(
    first: string,
    second: string,
    { maxLength = Infinity }: Pick<EncodeOptions, 'maxLength'> = {},
  ): PairEncoding {
    const a = this.#encodeBare(first);
    const b = this.#encodeBare(second);
    const [keepA, keepB] = longestFirst(a.length, b.length, Math.max(0, maxLength - this.#pair.length + 2));
    return fill(this.#pair, a.slice(0, keepA), b.slice(0, keepB));
  }

  /** The text of some ids. Ids without a token are left out; bytes that are no character become U+FFFD. */
  decode(ids: readonly number[], { skipSpecialTokens = false }: { readonly skipSpecialTokens?: boolean } = {}): string {
    const known = ids.filter((id) => this.tokenOf(id) !== undefined);
    if (known.length === 0) return '';
    return this.#library.decode(known, { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false });
  }

  /** The id of a token, spelt as in tokenizer.json. */
  idOf(token: string): number | undefined {
    return this.#library.token_to_id(token);
  }

  /** The token of an id, spelt as in tokenizer.json. */
  tokenOf(id: number): string | undefined {
    return this.#library.id_to_token(id);
  }

  /**
   * The id of a token that a stage cannot do without.
   *
   * @throws UserError when tokenizer_config.json names none; `where` is the model folder.
   */
  requireSpecial(role: SpecialRole, where: string): number {
    const found = this.special[role];
    if (found !== undefined) return found;
    throw new UserError({
      code: 'tokenizer.missing-special-token',
      message: `The tokenizer has no ${role} token.`,
      where,
      fix: `Name it as "${role}_token" in tokenizer_config.json; it must be in the vocabulary.`,
    });
  }

  #encodeBare(text: string): number[] {
    const { ids } = this.#library.encode(this.#prepare(text), { add_special_tokens: false });
    return ids.filter((id) => id !== undefined);
  }

  #readTemplate(second: string[] | null): Template {
    const processor = this.#library.post_processor;
    const output = processor?.post_process([FIRST], second, true) ?? {
      tokens: [FIRST, ...(second ?? [])],
    };
    return output.tokens.map((token, i): Template[number] => {
      const typeId = output.token_type_ids?.[i] ?? 0;
      if (token === FIRST) return { piece: 'first', typeId };
      if (token === SECOND) return { piece: 'second', typeId };
      const id = this.idOf(token);
      if (id === undefined) throw new Error(`the template adds ${token}, which is not in the vocabulary`);
      return { piece: id, typeId };
    });
  }
}

function fill(template: Template, first: readonly number[], second: readonly number[]): PairEncoding {
  const ids: number[] = [];
  const typeIds: number[] = [];
  for (const { piece, typeId } of template) {
    const part = piece === 'first' ? first : piece === 'second' ? second : [piece];
    for (const id of part) {
      ids.push(id);
      typeIds.push(typeId);
    }
  }
  return { ids, typeIds };
}

/** How much of two lengths to keep within `room`: the shorter is kept while it takes at most its half. */
function longestFirst(a: number, b: number, room: number): [number, number] {
  if (a + b <= room) return [a, b];
  const shorter = Math.min(a, b, Math.floor(room / 2));
  return a > b ? [room - shorter, shorter] : [shorter, room - shorter];
}

function highestId({ model: { vocab }, added_tokens }: TokenizerJson): number {
  let highest = -1;
  if (Array.isArray(vocab)) highest = vocab.length - 1;
  else for (const id of Object.values(vocab)) highest = Math.max(highest, id);
  for (const { id } of added_tokens) highest = Math.max(highest, id);
  return highest;
}

function findSpecialIds(library: LibraryTokenizer, json: TokenizerJson, config: TokenizerConfig): Tokenizer['special'] {
  const found: Partial<Record<SpecialRole, number>> = {};
  for (const role of ROLES) {
    const token = config[`${role}_token`] ?? (role === 'unk' ? json.model.unk_token : undefined);
    const id = token == null ? undefined : library.token_to_id(token);
    if (id !== undefined) found[role] = id;
  }
  return found;
}

/**
 * Refuses a tokenizer that has ids a model has no embedding for.
 *
 * @param vocabSize Rows of the model's embedding.
 * @param where The model folder.
 */
export function assertTokenizerFits(tokenizer: Tokenizer, vocabSize: number, where: string): void {
  if (tokenizer.vocabSize <= vocabSize) return;
  throw new UserError({
    code: 'tokenizer.does-not-fit',
    message: `The tokenizer does not fit the model: its ids go up to ${tokenizer.vocabSize - 1}, and the model has ${vocabSize} embeddings (ids up to ${vocabSize - 1}).`,
    where,
    fix: 'Use the tokenizer files that belong to this model.',
  });
}
