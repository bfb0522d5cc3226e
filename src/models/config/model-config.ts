import { z } from 'zod';
import { nearest } from '../../config/nearest.js';
import { UserError } from '../../errors.js';
import {
  bertArchitectures,
  bertToHuggingFace,
  firstPosition,
  parseBertConfig,
  type BertArchitecture,
  type BertConfig,
} from './bert.js';
import {
  causalFamilies,
  parseCausalConfig,
  type CausalArchitecture,
  type CausalConfig,
  type CausalFamily,
} from './causal.js';
import {
  debertaV2Architectures,
  debertaV2ToHuggingFace,
  parseDebertaV2Config,
  type DebertaV2Architecture,
  type DebertaV2Config,
} from './deberta-v2.js';
import { parseJsonFields } from './fields.js';
import { llamaToHuggingFace, llamaTraits } from './llama.js';
import { qwen2ToHuggingFace, qwen2Traits } from './qwen2.js';
import { qwen3ToHuggingFace, qwen3Traits } from './qwen3.js';

export type EncoderConfig = DebertaV2Config | BertConfig;
export type ModelConfig = CausalConfig | EncoderConfig;
type Architecture = CausalArchitecture | DebertaV2Architecture | BertArchitecture;

const causalTraits = { qwen3: qwen3Traits, qwen2: qwen2Traits, llama: llamaTraits };

/** Every architecture that is computed, and the reader of its config. */
const readers = new Map<string, (json: unknown, where: string) => ModelConfig>();
for (const [type, name] of Object.entries(causalFamilies)) {
  for (const head of ['CausalLM', 'SequenceClassification'] as const) {
    const architecture = `${name}For${head}` as const;
    const traits = causalTraits[type as CausalFamily];
    readers.set(architecture, (json, where) => parseCausalConfig(traits, json, where, architecture));
  }
}
for (const architecture of debertaV2Architectures) {
  readers.set(architecture, (json, where) => parseDebertaV2Config(json, where, architecture));
}
for (const architecture of bertArchitectures) {
  readers.set(architecture, (json, where) => parseBertConfig(json, where, architecture));
}
// With a second head, which predicts the next sentence and is not needed.
readers.set('BertForPreTraining', (json, where) => parseBertConfig(json, where, 'BertForMaskedLM'));

export const knownArchitectures: readonly string[] = [...readers.keys()];

/** What a config that names no architecture is taken for. */
const architectureOfType: Readonly<Record<ModelConfig['modelType'], Architecture>> = {
  qwen3: 'Qwen3ForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  llama: 'LlamaForCausalLM',
  'deberta-v2': 'DebertaV2Model',
  bert: 'BertModel',
  roberta: 'RobertaModel',
};

const schema = z.object({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string().nullish(),
});

/**
 * Reads the `config.json` of any model that this project computes.
 *
 * @param where the file, for error messages
 * @throws UserError for an unknown architecture (naming the known ones), or a wrong value
 */
export function parseModelConfig(json: unknown, where: string): ModelConfig {
  const { architectures, model_type: modelType } = parseJsonFields(schema, json, where);
  const byType = new Map<string, Architecture>(Object.entries(architectureOfType));
  const named = architectures?.[0] ?? byType.get(modelType ?? '');
  const read = readers.get(named ?? '');
  if (read === undefined) throw unknownArchitecture(named, modelType, where);
  return read(json, where);
}

function unknownArchitecture(
  named: string | undefined,
  modelType: string | null | undefined,
  where: string,
): UserError {
  const first = nearest(named ?? modelType ?? '', knownArchitectures)!;
  const others = knownArchitectures.filter((known) => known !== first);
  return new UserError({
    code: 'model.unknown-architecture',
    message: `The architecture ${named ?? `of model type ${modelType ?? '(none)'}`} is not supported.`,
    where,
    fix: `Give a model of one of these: ${[first, ...others].join(', ')}.`,
  });
}

/** The content of `config.json` for a model, so that transformers and `parseModelConfig` read it back. */
export function toHuggingFaceConfig(config: ModelConfig): Record<string, unknown> {
  switch (config.modelType) {
    case 'qwen3':
      return qwen3ToHuggingFace(config);
    case 'qwen2':
      return qwen2ToHuggingFace(config);
    case 'llama':
      return llamaToHuggingFace(config);
    case 'deberta-v2':
      return debertaV2ToHuggingFace(config);
    case 'bert':
    case 'roberta':
      return bertToHuggingFace(config);
  }
}

/** Whether a model has a head that tells labels apart. */
export const isClassifier = ({ architecture }: ModelConfig): boolean =>
  architecture.endsWith('ForSequenceClassification');

/** Tokens that a model has positions for; infinite where positions are relative alone. */
export function positionLimit(config: ModelConfig): number {
  switch (config.modelType) {
    case 'deberta-v2':
      return config.positionBiasedInput ? config.maxPositionEmbeddings : Infinity;
    case 'bert':
    case 'roberta':
      return config.maxPositionEmbeddings - firstPosition(config);
    default:
      return config.maxPositionEmbeddings;
  }
}

/** The largest rate of dropout that a model's config asks for anywhere. */
export function dropoutOf(config: ModelConfig): number {
  if (config.kind === 'causal') return config.attentionDropout;
  const { hiddenDropoutProb: hidden, attentionProbsDropoutProb: attention, classifierDropout: classifier } = config;
  return Math.max(hidden, attention, classifier, config.modelType === 'deberta-v2' ? config.poolerDropout : 0);
}
