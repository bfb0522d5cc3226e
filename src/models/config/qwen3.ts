import { z } from 'zod';
import {
  contradiction,
  count,
  listable,
  natural,
  orDefault,
  parseJsonFields,
  probability,
  tokenId,
  tokenIds,
  unsupported,
  weightDtype,
  type WeightDtype,
} from './fields.js';

/** A Qwen3 causal language model (https://arxiv.org/abs/2505.09388), as `config.json` describes it. */
export interface Qwen3Config {
  readonly modelType: 'qwen3';
  readonly architecture: 'Qwen3ForCausalLM';
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  /** Divides `numAttentionHeads`: each is shared by that many query heads. */
  readonly numKeyValueHeads: number;
  /** Even. Independent of `hiddenSize / numAttentionHeads`. */
  readonly headDim: number;
  readonly hiddenAct: 'silu';
  readonly maxPositionEmbeddings: number;
  /** Standard deviation of freshly made weights. */
  readonly initializerRange: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** The output head is the embedding matrix. */
  readonly tieWordEmbeddings: boolean;
  /** q, k, v and o have a bias. */
  readonly attentionBias: boolean;
  readonly attentionDropout: number;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  readonly dtype: WeightDtype;
}

const ropeSchema = z.looseObject({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: z.number().positive().nullish(),
});

/** The fields that are read, with the defaults of transformers' Qwen3Config. */
const schema = z.object({
  vocab_size: orDefault(count, 151936),
  hidden_size: orDefault(count, 4096),
  intermediate_size: orDefault(count, 22016),
  num_hidden_layers: orDefault(listable, 32),
  num_attention_heads: orDefault(count, 32),
  num_key_value_heads: count.nullable().default(32),
  head_dim: count.nullable().default(128),
  hidden_act: orDefault(z.string(), 'silu'),
  max_position_embeddings: orDefault(count, 32768),
  initializer_range: orDefault(z.number().nonnegative(), 0.02),
  rms_norm_eps: orDefault(z.number().positive(), 1e-6),
  tie_word_embeddings: orDefault(z.boolean(), false),
  attention_bias: orDefault(z.boolean(), false),
  attention_dropout: orDefault(probability, 0),
  rope_parameters: ropeSchema.nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_theta: orDefault(z.number().positive(), 10000),
  use_sliding_window: orDefault(z.boolean(), false),
  sliding_window: natural.nullable().default(4096),
  max_window_layers: orDefault(natural, 28),
  layer_types: z.array(z.string()).nullish(),
  bos_token_id: tokenId,
  eos_token_id: tokenIds,
  pad_token_id: tokenId,
  dtype: weightDtype.nullish(),
  torch_dtype: weightDtype.nullish(),
});
type RawConfig = z.output<typeof schema>;

/**
 * Reads a Qwen3 `config.json`, in the style of transformers 5 (`rope_parameters`, `dtype`) or 4 (`rope_theta`,
 * `rope_scaling`, `torch_dtype`).
 *
 * @param where the file, for error messages
 * @throws UserError for a wrong value, or a kind of Qwen3 that is not supported
 */
export function parseQwen3Config(json: unknown, where: string): Qwen3Config {
  const raw = parseJsonFields(schema, json, where);
  refuseSlidingWindow(raw, where);
  if (raw.hidden_act !== 'silu') {
    throw unsupported(`Activation \`${raw.hidden_act}\``, where, 'Give a Qwen3 model with `hidden_act` silu.');
  }
  const numKeyValueHeads = raw.num_key_value_heads ?? raw.num_attention_heads;
  const headDim = raw.head_dim ?? raw.hidden_size / raw.num_attention_heads;
  if (raw.num_attention_heads % numKeyValueHeads !== 0) {
    throw contradiction(
      `${raw.num_attention_heads} attention heads cannot share ${numKeyValueHeads} key-value heads evenly.`,
      where,
    );
  }
  if (headDim % 2 !== 0) {
    throw contradiction(`A head of ${headDim} values cannot be rotated in pairs: \`head_dim\` must be even.`, where);
  }
  return {
    modelType: 'qwen3',
    architecture: 'Qwen3ForCausalLM',
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    numHiddenLayers: raw.num_hidden_layers,
    numAttentionHeads: raw.num_attention_heads,
    numKeyValueHeads,
    headDim,
    hiddenAct: 'silu',
    maxPositionEmbeddings: raw.max_position_embeddings,
    initializerRange: raw.initializer_range,
    rmsNormEps: raw.rms_norm_eps,
    ropeTheta: ropeTheta(raw, where),
    tieWordEmbeddings: raw.tie_word_embeddings,
    attentionBias: raw.attention_bias,
    attentionDropout: raw.attention_dropout,
    bosTokenId: raw.bos_token_id,
    eosTokenIds: raw.eos_token_id,
    padTokenId: raw.pad_token_id,
    dtype: raw.dtype ?? raw.torch_dtype ?? 'float32',
  };
}

function refuseSlidingWindow(raw: RawConfig, where: string): void {
  const other = raw.layer_types?.find((type) => type !== 'full_attention');
  const windowed =
    raw.use_sliding_window && raw.sliding_window !== null && raw.max_window_layers < raw.num_hidden_layers;
  if (other !== undefined || (windowed && raw.layer_types == null)) {
    throw unsupported(
      `Attention of type \`${other ?? 'sliding_attention'}\``,
      where,
      'Give a model with full attention.',
    );
  }
}

function ropeTheta(raw: RawConfig, where: string): number {
  const rope = raw.rope_parameters ?? raw.rope_scaling;
  const type = rope?.rope_type ?? rope?.type ?? 'default';
  if (type !== 'default') {
    throw unsupported(`Rotary embedding of type \`${type}\``, where, 'Give a model whose `rope_type` is default.');
  }
  return rope?.rope_theta ?? raw.rope_theta;
}

/**
 * The `config.json` of a Qwen3 model that transformers 5 and 4 both read: the rotary base stands in `rope_parameters`
 * and in `rope_theta`.
 */
export function qwen3ToHuggingFace(config: Qwen3Config): Record<string, unknown> {
  const [firstEos, ...otherEos] = config.eosTokenIds;
  return {
    architectures: [config.architecture],
    attention_bias: config.attentionBias,
    attention_dropout: config.attentionDropout,
    bos_token_id: config.bosTokenId,
    dtype: config.dtype,
    eos_token_id: otherEos.length > 0 ? config.eosTokenIds : (firstEos ?? null),
    head_dim: config.headDim,
    hidden_act: config.hiddenAct,
    hidden_size: config.hiddenSize,
    initializer_range: config.initializerRange,
    intermediate_size: config.intermediateSize,
    layer_types: Array<string>(config.numHiddenLayers).fill('full_attention'),
    max_position_embeddings: config.maxPositionEmbeddings,
    max_window_layers: config.numHiddenLayers,
    model_type: config.modelType,
    num_attention_heads: config.numAttentionHeads,
    num_hidden_layers: config.numHiddenLayers,
    num_key_value_heads: config.numKeyValueHeads,
    pad_token_id: config.padTokenId,
    rms_norm_eps: config.rmsNormEps,
    rope_parameters: { rope_theta: config.ropeTheta, rope_type: 'default' },
    rope_theta: config.ropeTheta,
    sliding_window: null,
    tie_word_embeddings: config.tieWordEmbeddings,
    use_cache: true,
    use_sliding_window: false,
    vocab_size: config.vocabSize,
  };
}
