import { tensor, type Tensor } from '../graph/tensor.js';
import { dropoutOf, type ModelConfig } from '../models/config/model-config.js';
import type { LoraSettings } from '../nn/context.js';
import { sequencesOf, type PaddedTokens } from '../models/padded-tokens.js';
import { stream } from '../random.js';

/**
 * The feeds from which a training graph draws its dropout masks: one seed for each step, and which rows of the optimizer's
 * batch go through the model now. A row's masks do not depend on how the batch is cut.
 *
 * @param rows positions in the optimizer's batch, in the order of the batch that is fed
 */
export const dropoutFeeds = (seed: number, step: number, rows: readonly number[]): Record<string, Tensor> => ({
  dropout_seed: tensor('uint32', [], [stream(seed, 'dropout', step).uint32()]),
  dropout_rows: tensor('int32', [rows.length], rows),
});

/** More tokens than an item of a batch has. */
const ITEM = 2 ** 16;

/** An item of an optimizer's batch, and where in the batch it stands. */
export interface BatchItem {
  readonly row: number;
  readonly sequences: readonly { readonly inputIds: readonly number[] }[];
}

/** The same for packed tokens: a token is known by its item's row and its place in the item. */
export function packedDropoutFeeds(seed: number, step: number, items: readonly BatchItem[]): Record<string, Tensor> {
  const starts: number[] = [];
  const tokens: number[] = [];
  for (const { row, sequences } of items) {
    let id = row * ITEM;
    for (const { inputIds } of sequences) {
      starts.push(id);
      for (let token = 0; token < inputIds.length; token++) tokens.push(id++);
    }
  }
  return { ...dropoutFeeds(seed, step, starts), dropout_tokens: tensor('int32', [tokens.length], tokens) };
}

/** The same for a classifier, fed with a padded batch: a causal model packs it. */
export function classifierDropoutFeeds(
  { kind }: ModelConfig,
  { seed, step }: { readonly seed: number; readonly step: number },
  tokens: PaddedTokens,
  rows: readonly number[],
): Record<string, Tensor> {
  if (kind === 'encoder') return dropoutFeeds(seed, step, rows);
  const items = sequencesOf(tokens).map((inputIds, i) => ({ row: rows[i]!, sequences: [{ inputIds }] }));
  return packedDropoutFeeds(seed, step, items);
}

/** Whether a training graph of a model, with an adapter where one learns, draws masks at all. */
export const dropsOut = (model: ModelConfig, lora?: Pick<LoraSettings, 'dropout'>): boolean =>
  dropoutOf(model) > 0 || (lora?.dropout ?? 0) > 0;
