import { z } from 'zod';
import { UserError } from '../errors.js';
import type { LoraSettings } from '../nn/context.js';
import { count, orDefault, parseJsonFields, probability } from '../models/config/fields.js';

/** A LoRA adapter (https://arxiv.org/abs/2106.09685), as PEFT's `adapter_config.json` describes it. */
export interface AdapterConfig {
  readonly r: number;
  readonly loraAlpha: number;
  readonly loraDropout: number;
  /** Last parts of the names of the linear modules that are adapted, for example `q_proj`. */
  readonly targetModules: readonly string[];
  /** Scale by alpha/√r instead of alpha/r. */
  readonly useRslora: boolean;
  /** Last parts of the names of modules whose weights the adapter holds whole, in place of the model's. */
  readonly modulesToSave?: readonly string[];
  readonly taskType: 'CAUSAL_LM' | 'SEQ_CLS' | 'FEATURE_EXTRACTION' | null;
  readonly baseModelNameOrPath: string | null;
}

/** The adapter's settings as the layers take them. */
export const loraOf = ({ config }: { readonly config: AdapterConfig }): LoraSettings => ({
  r: config.r,
  alpha: config.loraAlpha,
  dropout: config.loraDropout,
  targetModules: config.targetModules,
  rankStabilized: config.useRslora,
  ...(config.modulesToSave !== undefined && { modulesToSave: config.modulesToSave }),
});

const schema = z.looseObject({
  peft_type: z.string(),
  r: count,
  lora_alpha: z.number().positive(),
  lora_dropout: orDefault(probability, 0),
  target_modules: z.array(z.string()).nonempty(),
  use_rslora: orDefault(z.boolean(), false),
  modules_to_save: orDefault(z.array(z.string()).nullable(), null),
  bias: orDefault(z.string(), 'none'),
  task_type: orDefault(z.enum(['CAUSAL_LM', 'SEQ_CLS', 'FEATURE_EXTRACTION']).nullable(), null),
  base_model_name_or_path: orDefault(z.string().nullable(), null),
});

/**
 * Fields of PEFT's LoraConfig that change what is computed, or which modules are adapted, in ways that this project
 * does not: an adapter that sets one to anything but null, false or empty is refused.
 */
const unsupportedFields = [
  'use_dora',
  'use_qalora',
  'use_bdlora',
  'lora_bias',
  'fan_in_fan_out',
  'rank_pattern',
  'alpha_pattern',
  'exclude_modules',
  'layers_to_transform',
  'layers_pattern',
  'layer_replication',
  'target_parameters',
  'trainable_token_indices',
  'alora_invocation_tokens',
  'arrow_config',
  'kasa_config',
  'monteclora_config',
  'velora_config',
] as const;

/** Ways of making A and B that leave the base weights alone; others (PiSSA, OLoRA, …) come with a changed base model. */
const harmlessInitialisations: readonly unknown[] = [undefined, null, true, false, 'gaussian', 'orthogonal', 'eva'];

/**
 * Reads the JSON of an `adapter_config.json`.
 *
 * @throws UserError for a wrong value, or a kind of adapter that is not supported, by its name
 */
export function parseAdapterConfig(json: unknown, where: string): AdapterConfig {
  const raw = parseJsonFields(schema, json, where);
  if (raw.peft_type !== 'LORA') throw unsupportedAdapter(`peft_type ${raw.peft_type}`, where);
  if (raw.bias !== 'none') throw unsupportedAdapter(`bias ${raw.bias}`, where);
  const set = unsupportedFields.find((field) => isSet(raw[field]));
  if (set !== undefined) throw unsupportedAdapter(`${set} ${JSON.stringify(raw[set])}`, where);
  if (!harmlessInitialisations.includes(raw['init_lora_weights'])) {
    throw unsupportedAdapter(`init_lora_weights ${JSON.stringify(raw['init_lora_weights'])}`, where);
  }
  return {
    r: raw.r,
    loraAlpha: raw.lora_alpha,
    loraDropout: raw.lora_dropout,
    targetModules: [...raw.target_modules].sort(),
    useRslora: raw.use_rslora,
    ...(raw.modules_to_save !== null && raw.modules_to_save.length > 0 && { modulesToSave: raw.modules_to_save }),
    taskType: raw.task_type,
    baseModelNameOrPath: raw.base_model_name_or_path,
  };
}

const isSet = (value: unknown): boolean =>
  typeof value === 'object' && value !== null ? Object.keys(value).length > 0 : Boolean(value);

const unsupportedAdapter = (what: string, where: string): UserError =>
  new UserError({
    code: 'adapter.unsupported',
    message: `An adapter with ${what} is not supported.`,
    where,
    fix: 'Give a plain LoRA adapter: bias none, one rank for all modules, no DoRA.',
  });

/** The content of `adapter_config.json`, with every key that PEFT writes. */
export const adapterConfigToPeft = (config: AdapterConfig): Record<string, unknown> => ({
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: config.baseModelNameOrPath,
  bias: 'none',
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: config.loraAlpha,
  lora_bias: false,
  lora_dropout: config.loraDropout,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: 'megatron.core',
  modules_to_save: config.modulesToSave ?? null,
  monteclora_config: null,
  peft_type: 'LORA',
  peft_version: '0.21.2',
  qalora_group_size: 16,
  r: config.r,
  rank_pattern: {},
  revision: null,
  target_modules: [...config.targetModules].sort(),
  target_parameters: null,
  task_type: config.taskType,
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: config.useRslora,
  velora_config: null,
});
