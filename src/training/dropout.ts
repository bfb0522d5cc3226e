import { tensor, type Tensor } from '../graph/tensor.js';
import { dropoutOf, type ModelConfig } from '../models/config/model-config.js';
import type { LoraSettings } from '../nn/context.js';
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

/** Whether a training graph of a model, with an adapter where one learns, draws masks at all. */
export const dropsOut = (model: ModelConfig, lora?: Pick<LoraSettings, 'dropout'>): boolean =>
  dropoutOf(model) > 0 || (lora?.dropout ?? 0) > 0;
