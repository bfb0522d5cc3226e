import { z } from 'zod';
import { UserError } from '../../errors.js';
import { parseJsonFields } from '../../models/config/fields.js';
import type { FourBitKind } from './codebook.js';

/** How the linear layers of a bitsandbytes checkpoint are quantised: `quantization_config` of its `config.json`. */
export interface BitsAndBytesConfig {
  readonly kind: FourBitKind;
  /** Whether the scales are quantised, too. */
  readonly nested: boolean;
}

const schema = z.looseObject({
  quant_method: z.string(),
  load_in_4bit: z.boolean().default(false),
  load_in_8bit: z.boolean().default(false),
  bnb_4bit_quant_type: z.string().default('fp4'),
  bnb_4bit_use_double_quant: z.boolean().default(false),
});

/**
 * The quantisation that a model's `config.json` names, or undefined where it names none.
 *
 * @throws UserError for a kind that is not read, by its name
 */
export function parseQuantizationConfig(
  config: Readonly<Record<string, unknown>>,
  where: string,
): BitsAndBytesConfig | undefined {
  const given = config['quantization_config'] ?? undefined;
  if (given === undefined) return undefined;
  const raw = parseJsonFields(schema, given, where);
  if (raw.quant_method !== 'bitsandbytes') throw unsupported(raw.quant_method, where);
  if (raw.load_in_8bit || !raw.load_in_4bit) throw unsupported('bitsandbytes in 8 bits', where);
  const kind = raw.bnb_4bit_quant_type;
  if (kind !== 'nf4' && kind !== 'fp4') throw unsupported(`bitsandbytes ${kind}`, where);
  return { kind, nested: raw.bnb_4bit_use_double_quant };
}

const unsupported = (what: string, where: string): UserError =>
  new UserError({
    code: 'model.unsupported-quantization',
    message: `The model is quantised as ${what}, which is not read. Known are bitsandbytes nf4 and fp4.`,
    where,
    fix: 'Give the model that it was made from, or a bitsandbytes checkpoint in 4 bits.',
  });

/**
 * `quantization_config` as transformers writes it for such a checkpoint, but for the threshold of its 8-bit form: it must
 * read as a fraction, which JSON does not write of a whole number here, and is 6.0 where it is not given.
 */
export const quantizationConfigToHuggingFace = ({ kind, nested }: BitsAndBytesConfig): Record<string, unknown> => ({
  _load_in_4bit: true,
  _load_in_8bit: false,
  bnb_4bit_compute_dtype: 'float32',
  bnb_4bit_quant_storage: 'uint8',
  bnb_4bit_quant_type: kind,
  bnb_4bit_use_double_quant: nested,
  llm_int8_enable_fp32_cpu_offload: false,
  llm_int8_has_fp16_weight: false,
  llm_int8_skip_modules: null,
  load_in_4bit: true,
  load_in_8bit: false,
  quant_method: 'bitsandbytes',
});
