import { loadTensors, type ModelFolder } from '../checkpoints/model-folder.js';
import { requireParameters } from '../checkpoints/require-parameters.js';
import type { TensorInfo } from '../checkpoints/safetensors.js';
import { UserError } from '../errors.js';
import type { Value } from '../graph/graph.js';
import type { Tensor } from '../graph/tensor.js';
import type { DebertaV2Config } from '../models/config/deberta-v2.js';
import { requireTwoLabels, REWARD_LABELS } from '../rewards/reward-model.js';
import { initialWeights } from './initial-weights.js';

/**
 * The classifier that a folder starts: its own one, or its encoder under a new head of two labels. `dropout` replaces
 * the config's rates of hidden states, attention and head.
 *
 * @throws UserError when the folder holds no DeBERTa-v2, or a classifier of other labels
 */
export function classifierConfig(
  { config, dir }: Pick<ModelFolder, 'config' | 'dir'>,
  dropout: number | undefined,
): DebertaV2Config {
  if (config.modelType !== 'deberta-v2') {
    throw new UserError({
      code: 'model.not-encoder',
      message: `A model of type ${config.modelType} cannot become a reward model.`,
      where: dir,
      fix: 'Give a DeBERTa-v2 encoder, such as assets/nano-deberta.',
    });
  }
  const isClassifier = config.architecture === 'DebertaV2ForSequenceClassification';
  if (isClassifier) requireTwoLabels(config, dir);
  return {
    ...config,
    architecture: 'DebertaV2ForSequenceClassification',
    labels: isClassifier ? config.labels : REWARD_LABELS,
    dtype: 'float32',
    ...(dropout !== undefined && {
      hiddenDropoutProb: dropout,
      attentionProbsDropoutProb: dropout,
      classifierDropout: dropout,
    }),
  };
}

/**
 * The weights to start from, and the names of those that are fresh: the head (`pooler.*`, `classifier.*`) where a folder
 * holds an encoder alone. A classifier is taken whole.
 *
 * @throws UserError when a weight of the encoder is missing or of another shape
 */
export async function startingWeights(
  { config, weights }: Pick<ModelFolder, 'config' | 'weights'>,
  parameters: ReadonlyMap<string, Value>,
  seed: number,
): Promise<{ tensors: Map<string, Tensor<'float32'>>; fresh: string[] }> {
  const stored = withPrefix(weights);
  const mayBeFresh = (name: string): boolean =>
    config.architecture !== 'DebertaV2ForSequenceClassification' && /^(pooler|classifier)\./.test(name);
  const fresh = new Map([...parameters].filter(([name]) => mayBeFresh(name) && !stored.has(name)));
  const given = new Map([...parameters].filter(([name]) => !fresh.has(name)));
  requireParameters(stored, given);
  const loaded = await loadTensors(stored, given.keys());
  const made = initialWeights(fresh, config.initializerRange, seed);
  return {
    tensors: new Map([...parameters.keys()].map((name) => [name, (loaded.get(name) ?? made.get(name))!])),
    fresh: [...fresh.keys()],
  };
}

/** A bare encoder is saved without the `deberta.` that its names begin with under a head. */
function withPrefix(weights: ReadonlyMap<string, TensorInfo>): ReadonlyMap<string, TensorInfo> {
  if (!weights.has('embeddings.word_embeddings.weight')) return weights;
  return new Map([...weights].map(([bare, info]) => [`deberta.${bare}`, { ...info, name: `deberta.${bare}` }]));
}
