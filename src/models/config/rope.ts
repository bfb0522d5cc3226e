import { z } from 'zod';
import type { Rope } from '../../nn/rotary.js';
import { contradiction, count, orDefault, unsupported } from './fields.js';

const factor = z.number().min(1);

/** What `rope_parameters` (transformers 5) or `rope_scaling` (4) may say; which keys are needed depends on the type. */
const parameters = z.looseObject({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: z.number().positive().nullish(),
  partial_rotary_factor: z.number().nullish(),
  factor: factor.nullish(),
  low_freq_factor: z.number().positive().nullish(),
  high_freq_factor: z.number().positive().nullish(),
  original_max_position_embeddings: count.nullish(),
  attention_factor: z.number().positive().nullish(),
  beta_fast: z.number().positive().nullish(),
  beta_slow: z.number().positive().nullish(),
  mscale: z.number().nonnegative().nullish(),
  mscale_all_dim: z.number().nonnegative().nullish(),
  truncate: z.boolean().nullish(),
});

export const ropeFields = {
  rope_parameters: parameters.nullish(),
  rope_scaling: parameters.nullish(),
  rope_theta: orDefault(z.number().positive(), 10000),
};

interface RawRope {
  readonly rope_parameters?: z.output<typeof parameters> | null | undefined;
  readonly rope_scaling?: z.output<typeof parameters> | null | undefined;
  readonly rope_theta: number;
  readonly max_position_embeddings: number;
}

/** The rotary embedding of a config, in the style of transformers 5 or 4. */
export function parseRope(raw: RawRope, where: string): Rope {
  const given = raw.rope_parameters ?? raw.rope_scaling ?? {};
  const type = given.rope_type ?? given.type ?? 'default';
  const theta = given.rope_theta ?? raw.rope_theta;
  const share = given.partial_rotary_factor ?? 1;
  if (share !== 1)
    throw unsupported(`\`partial_rotary_factor\` ${share}`, where, 'Give a model that rotates whole heads.');
  const needed = (key: keyof typeof given): number => {
    const value = given[key];
    if (typeof value === 'number') return value;
    throw contradiction(`Rotary embedding of type \`${type}\` needs \`${key}\`, which is missing.`, where);
  };
  switch (type) {
    case 'default':
      return { type, theta };
    case 'linear':
      return { type, theta, factor: needed('factor') };
    case 'llama3': {
      const [lowFreqFactor, highFreqFactor] = [needed('low_freq_factor'), needed('high_freq_factor')];
      if (lowFreqFactor >= highFreqFactor) {
        throw contradiction(
          `\`low_freq_factor\` ${lowFreqFactor} must be below \`high_freq_factor\` ${highFreqFactor}.`,
          where,
        );
      }
      const originalMaxPositionEmbeddings = needed('original_max_position_embeddings');
      return { type, theta, factor: needed('factor'), lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings };
    }
    case 'yarn': {
      const original = given.original_max_position_embeddings ?? raw.max_position_embeddings;
      const factor = given.factor ?? Math.max(1, raw.max_position_embeddings / original);
      return {
        type,
        theta,
        factor,
        originalMaxPositionEmbeddings: original,
        attentionFactor: given.attention_factor ?? yarnAttentionFactor(factor, given.mscale, given.mscale_all_dim),
        betaFast: given.beta_fast ?? 32,
        betaSlow: given.beta_slow ?? 1,
        truncate: given.truncate ?? true,
      };
    }
    default:
      throw unsupported(
        `Rotary embedding of type \`${type}\``,
        where,
        'Give a model whose `rope_type` is default, linear, llama3 or yarn.',
      );
  }
}

/** 0.1·ln(factor) + 1, or the quotient of two such with coefficients of their own (as DeepSeek's models have). */
function yarnAttentionFactor(factor: number, mscale?: number | null, mscaleAllDim?: number | null): number {
  const scale = (coefficient: number): number => (factor <= 1 ? 1 : 0.1 * coefficient * Math.log(factor) + 1);
  return mscale && mscaleAllDim ? scale(mscale) / scale(mscaleAllDim) : scale(1);
}

/** Both styles in one: transformers 5 reads `rope_parameters`, 4 reads `rope_theta` and `rope_scaling`. */
export function ropeToHuggingFace(rope: Rope): Record<string, unknown> {
  const scaling = scalingOf(rope);
  return {
    rope_parameters: { rope_theta: rope.theta, ...(scaling ?? { rope_type: 'default' }) },
    ...(scaling !== undefined && { rope_scaling: scaling }),
    rope_theta: rope.theta,
  };
}

function scalingOf(rope: Rope): Record<string, unknown> | undefined {
  switch (rope.type) {
    case 'default':
      return undefined;
    case 'linear':
      return { rope_type: rope.type, factor: rope.factor };
    case 'llama3':
      return {
        rope_type: rope.type,
        factor: rope.factor,
        low_freq_factor: rope.lowFreqFactor,
        high_freq_factor: rope.highFreqFactor,
        original_max_position_embeddings: rope.originalMaxPositionEmbeddings,
      };
    case 'yarn':
      return {
        rope_type: rope.type,
        factor: rope.factor,
        original_max_position_embeddings: rope.originalMaxPositionEmbeddings,
        attention_factor: rope.attentionFactor,
        beta_fast: rope.betaFast,
        beta_slow: rope.betaSlow,
        truncate: rope.truncate,
      };
  }
}
