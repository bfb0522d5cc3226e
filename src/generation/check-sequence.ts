import { UserError } from '../errors.js';
import type { CausalConfig } from '../models/config/causal.js';

/**
 * Refuses a sequence that a model cannot take.
 *
 * @param room tokens that must still fit behind it
 * @param where the input it comes from
 * @throws UserError for no token at all, an id without an embedding, or more positions than the model has
 */
export function checkSequence(
  ids: readonly number[],
  model: Pick<CausalConfig, 'vocabSize' | 'maxPositionEmbeddings'>,
  { room, where }: { room: number; where: string },
): void {
  const { vocabSize, maxPositionEmbeddings: positions } = model;
  if (ids.length === 0) {
    throw new UserError({ code: 'input.no-tokens', message: 'The text has no tokens.', where, fix: 'Give a text.' });
  }
  const unknown = ids.find((id) => id >= vocabSize);
  if (unknown !== undefined) {
    throw new UserError({
      code: 'input.unknown-id',
      message: `The token id ${unknown} is not one of the model's ${vocabSize} (0 to ${vocabSize - 1}).`,
      where,
      fix: 'Give ids of the tokenizer that belongs to this model.',
    });
  }
  if (ids.length + room <= positions) return;
  const spare = positions - ids.length;
  throw new UserError({
    code: 'input.too-long',
    message: `The input has ${ids.length} tokens${room === 0 ? '' : `, and ${room} more are to be written`}; the model takes ${positions} in all.`,
    where,
    fix: room > 0 && spare > 0 ? `Shorten it, or write at most ${spare} (--max-new-tokens).` : 'Shorten it.',
  });
}
