import { z } from 'zod';
import { UserError } from '../../errors.js';
import {
  debertaV2Architectures,
  debertaV2ToHuggingFace,
  parseDebertaV2Config,
  type DebertaV2Config,
} from './deberta-v2.js';
import { parseJsonFields, unsupported } from './fields.js';
import { parseQwen3Config, qwen3ToHuggingFace, type Qwen3Config } from './qwen3.js';

export type ModelConfig = Qwen3Config | DebertaV2Config;

export const knownArchitectures = ['Qwen3ForCausalLM', ...debertaV2Architectures] as const;
type Architecture = (typeof knownArchitectures)[number];

/** What a config that names no architecture is taken for. */
const architectureOfType: Readonly<Record<string, Architecture>> = {
  qwen3: 'Qwen3ForCausalLM',
  'deberta-v2': 'DebertaV2Model',
};

const schema = z.object({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string().nullish(),
  quantization_config: z.unknown().optional(),
});

/**
 * Reads the `config.json` of any model that this project computes.
 *
 * @param where the file, for error messages
 * @throws UserError for an unknown architecture (naming the known ones), a quantised model, or a wrong value
 */
export function parseModelConfig(json: unknown, where: string): ModelConfig {
  const {
    architectures,
    model_type: modelType,
    quantization_config: quantization,
  } = parseJsonFields(schema, json, where);
  if (quantization != null) {
    throw unsupported(
      'A quantised model (`quantization_config`)',
      where,
      'Give the model in float32, float16 or bfloat16.',
    );
  }
  const named = architectures?.[0] ?? architectureOfType[modelType ?? ''];
  const architecture = knownArchitectures.find((known) => known === named);
  if (architecture === undefined) {
    throw new UserError({
      code: 'model.unknown-architecture',
      message: `The architecture ${named ?? `of model type ${modelType ?? '(none)'}`} is not supported.`,
      where,
      fix: `Give a model of one of these: ${knownArchitectures.join(', ')}.`,
    });
  }
  return architecture === 'Qwen3ForCausalLM'
    ? parseQwen3Config(json, where)
    : parseDebertaV2Config(json, where, architecture);
}

/** The content of `config.json` for a model, so that transformers and `parseModelConfig` read it back. */
export const toHuggingFaceConfig = (config: ModelConfig): Record<string, unknown> =>
  config.modelType === 'qwen3' ? qwen3ToHuggingFace(config) : debertaV2ToHuggingFace(config);
