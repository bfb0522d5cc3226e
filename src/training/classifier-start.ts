import type { ModelFolder } from '../checkpoints/model-folder.js';
import { requireParameters } from '../checkpoints/require-parameters.js';
import type { TensorInfo } from '../checkpoints/safetensors.js';
import type { Value } from '../graph/graph.js';
import { bertFamilies } from '../models/config/bert.js';
import { causalFamilies } from '../models/config/causal.js';
import { isClassifier, type ModelConfig } from '../models/config/model-config.js';
import { requireLabels, REWARD_LABELS } from '../rewards/reward-model.js';
import type { InitialValue } from '../optim/optimizer.js';
import { freshWeights, storedWeights } from './initial-weights.js';

/**
 * The classifier that a folder starts: its own one, or its body under a new head of `labels`. `dropout` replaces the
 * config's rates of hidden states, attention and head; `padTokenId` is what a causal model's texts are padded with.
 *
 * @throws UserError when the folder holds a classifier of other labels
 */
export function classifierConfig(
  { config, dir }: Pick<ModelFolder, 'config' | 'dir'>,
  dropout: number | undefined,
  padTokenId?: number,
  labels: readonly string[] = REWARD_LABELS,
): ModelConfig {
  if (isClassifier(config)) requireLabels(config, dir, [labels.length]);
  const head = { labels: isClassifier(config) ? config.labels : labels, dtype: 'float32' as const };
  if (config.kind === 'causal') {
    return {
      ...config,
      ...head,
      architecture: `${causalFamilies[config.modelType]}ForSequenceClassification`,
      attentionDropout: dropout ?? config.attentionDropout,
      padTokenId: padTokenId ?? config.padTokenId ?? 0,
    };
  }
  const rates = {
    hiddenDropoutProb: dropout ?? config.hiddenDropoutProb,
    attentionProbsDropoutProb: dropout ?? config.attentionProbsDropoutProb,
    classifierDropout: dropout ?? config.classifierDropout,
  };
  return config.modelType === 'deberta-v2'
    ? { ...config, ...head, ...rates, architecture: 'DebertaV2ForSequenceClassification' }
    : { ...config, ...head, ...rates, architecture: `${bertFamilies[config.modelType]}ForSequenceClassification` };
}

/**
 * How to read or make the weights to start from, where those lie that are read, and the names of those that are fresh: the
 * head where a folder holds a body alone. A classifier is taken whole.
 *
 * @throws UserError when a weight of the body is missing or of another shape
 */
export function startingWeights(
  { config, weights }: Pick<ModelFolder, 'config' | 'weights'>,
  parameters: ReadonlyMap<string, Value>,
  seed: number,
): { initial: Map<string, InitialValue>; stored: Map<string, TensorInfo>; fresh: string[] } {
  const named = withPrefix(weights, config);
  const mayBeFresh = (name: string): boolean =>
    !isClassifier(config) && /^(pooler|bert\.pooler|classifier|score)\./.test(name);
  const fresh = new Map([...parameters].filter(([name]) => mayBeFresh(name) && !named.has(name)));
  const given = new Map([...parameters].filter(([name]) => !fresh.has(name)));
  const stored = new Map(requireParameters(named, given).map((info) => [info.name, info]));
  const made = freshWeights(fresh, config.initializerRange, seed);
  return { initial: new Map([...storedWeights(stored, given.keys()), ...made]), stored, fresh: [...fresh.keys()] };
}

/** A bare encoder is saved without the `deberta.` or `bert.` that its names begin with under a head. */
function withPrefix(
  weights: ReadonlyMap<string, TensorInfo>,
  { modelType }: ModelConfig,
): ReadonlyMap<string, TensorInfo> {
  if (!weights.has('embeddings.word_embeddings.weight')) return weights;
  const prefix = modelType === 'deberta-v2' ? 'deberta' : modelType;
  return new Map([...weights].map(([bare, info]) => [`${prefix}.${bare}`, { ...info, name: `${prefix}.${bare}` }]));
}
