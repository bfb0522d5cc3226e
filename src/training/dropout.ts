import { tensor, type Tensor } from '../graph/tensor.js';
import { dropoutOf, type ModelConfig } from '../models/config/model-config.js';
import { stream } from '../random.js';

/** The feed from which a training graph draws its dropout masks: one seed for each micro-batch of each step. */
export const dropoutSeed = (seed: number, step: number, microBatch = 0): Record<string, Tensor> => ({
  dropout_seed: tensor('uint32', [], [stream(seed, 'dropout', step, microBatch).uint32()]),
});

/** Whether a training graph of all of a model's parameters draws masks at all. */
export const dropsOut = (model: ModelConfig): boolean => dropoutOf(model) > 0;
