import { UserError } from '../errors.js';
import type { Tokenizer } from './tokenizer.js';

export interface EncodePairOptions {
  readonly eosId: number;
  /** At most this many tokens, EOS included. */
  readonly maxLength: number;
  /** What to do with a completion that does not fit: cut its end (the default), or refuse it. */
  readonly truncation?: 'cut' | 'refuse';
  /** Where the texts come from, for errors: `file:line`. */
  readonly where?: string;
}

export interface EncodedPair {
  readonly inputIds: number[];
  /** 1 for the tokens to learn: those of the completion and the EOS. */
  readonly completionMask: (0 | 1)[];
  readonly truncated: boolean;
}

/**
 * The tokens of two texts, tokenised as one, and how many of the first belong to the prompt: those that it has in common
 * with the prompt tokenised alone. A token which reaches over the boundary, and whatever the completion changed before
 * it, thus belongs to the completion.
 */
export function tokenizePair(
  tokenizer: Tokenizer,
  prompt: string,
  completion: string,
): { readonly ids: number[]; readonly promptLength: number } {
  const ids = tokenizer.encode(prompt + completion);
  return { ids, promptLength: commonPrefix(tokenizer.encode(prompt), ids) };
}

/**
 * The tokens of prompt + completion + EOS, with those of the completion to be learned (see {@link tokenizePair}).
 *
 * That is what TRL's SFTTrainer does, with one departure: TRL cuts the end of the sequence, EOS included; here the
 * completion is cut one token earlier and EOS is always the last token. A completion whose text ends with EOS gets no second one.
 *
 * @throws UserError when the prompt leaves no room for the completion, or the completion does not fit and is not to be cut.
 */
export function encodePair(
  tokenizer: Tokenizer,
  prompt: string,
  completion: string,
  { eosId, maxLength, truncation = 'cut', where }: EncodePairOptions,
): EncodedPair {
  const { ids, promptLength } = tokenizePair(tokenizer, prompt, completion);
  const eos = tokenizer.tokenOf(eosId);
  if (eos !== undefined && completion.endsWith(eos) && ids.at(-1) === eosId) ids.pop();

  const start = Math.min(promptLength, ids.length);
  const room = maxLength - 1;
  const truncated = ids.length > room;
  if (truncated && start >= room) throw promptTooLong(tokenizer.encode(prompt).length, maxLength, where);
  if (truncated && truncation === 'refuse') throw completionTooLong(ids.length + 1, maxLength, where);
  const inputIds = [...ids.slice(0, room), eosId];
  return { inputIds, completionMask: inputIds.map((_, i) => (i < start ? 0 : 1)), truncated };
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}

function promptTooLong(length: number, maxLength: number, where: string | undefined): UserError {
  return new UserError({
    code: 'text.prompt-too-long',
    message: `The prompt has ${length} tokens and leaves no room for a completion within ${maxLength}.`,
    ...(where !== undefined && { where }),
    fix: 'Shorten it, remove the row, or raise maxLength.',
  });
}

function completionTooLong(length: number, maxLength: number, where: string | undefined): UserError {
  return new UserError({
    code: 'text.sample-too-long',
    message: `Prompt, completion and end token have ${length} tokens; the limit is ${maxLength}.`,
    ...(where !== undefined && { where }),
    fix: 'Shorten the text, raise maxLength, or let it be cut.',
  });
}
