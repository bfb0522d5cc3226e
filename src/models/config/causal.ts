import { z } from 'zod';
import type { Rope } from '../../nn/rotary.js';
import {
  contradiction,
  count,
  labelFields,
  labelsOf,
  labelsToHuggingFace,
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
import { parseRope, ropeFields, ropeToHuggingFace } from './rope.js';

/** Published names of the model types, as architectures begin. */
export const causalFamilies = { qwen3: 'Qwen3', qwen2: 'Qwen2', llama: 'Llama' } as const;
export type CausalFamily = keyof typeof causalFamilies;

/** With a head that writes, or one that judges the last token. */
export type CausalArchitecture = `${(typeof causalFamilies)[CausalFamily]}For${'CausalLM' | 'SequenceClassification'}`;

/**
 * A causal decoder of pre-norm blocks with rotary embedding, grouped queries and SwiGLU, as `config.json` describes it.
 * What tells the families apart are a few switches.
 */
export interface CausalConfig {
  readonly kind: 'causal';
  readonly modelType: CausalFamily;
  readonly architecture: CausalArchitecture;
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
  readonly rope: Rope;
  /** The output head is the embedding matrix. */
  readonly tieWordEmbeddings: boolean;
  /** Queries and keys of each head are normalised before they are rotated. */
  readonly qkNorm: boolean;
  /** Which projections have a bias: q, k and v; o; gate, up and down. */
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  readonly attentionDropout: number;
  /** Labels by their index, of a head that judges; none of one that writes. */
  readonly labels: readonly string[];
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  readonly dtype: WeightDtype;
}

/** Whether a model has a head that writes; the others judge. */
export const writes = ({ architecture }: Pick<CausalConfig, 'architecture'>): boolean => !isClassifier(architecture);

const isClassifier = (architecture: CausalArchitecture): boolean => architecture.endsWith('ForSequenceClassification');

/** Where the defaults of transformers' config classes differ. */
export interface CausalDefaults {
  readonly vocab_size: number;
  readonly intermediate_size: number;
  readonly num_key_value_heads: number | null;
  readonly head_dim: number | null;
  readonly max_position_embeddings: number;
}

/** The fields that are read, with the defaults of transformers' config classes. */
const schemaOf = (defaults: CausalDefaults) =>
  z.object({
    vocab_size: orDefault(count, defaults.vocab_size),
    hidden_size: orDefault(count, 4096),
    intermediate_size: orDefault(count, defaults.intermediate_size),
    num_hidden_layers: orDefault(listable, 32),
    num_attention_heads: orDefault(count, 32),
    num_key_value_heads: count.nullable().default(defaults.num_key_value_heads),
    head_dim: count.nullable().default(defaults.head_dim),
    hidden_act: orDefault(z.string(), 'silu'),
    max_position_embeddings: orDefault(count, defaults.max_position_embeddings),
    initializer_range: orDefault(z.number().nonnegative(), 0.02),
    rms_norm_eps: orDefault(z.number().positive(), 1e-6),
    tie_word_embeddings: orDefault(z.boolean(), false),
    attention_bias: orDefault(z.boolean(), false),
    mlp_bias: orDefault(z.boolean(), false),
    attention_dropout: orDefault(probability, 0),
    ...ropeFields,
    use_sliding_window: orDefault(z.boolean(), false),
    sliding_window: natural.nullable().default(4096),
    max_window_layers: orDefault(natural, 28),
    layer_types: z.array(z.string()).nullish(),
    ...labelFields,
    bos_token_id: tokenId,
    eos_token_id: tokenIds,
    pad_token_id: tokenId,
    dtype: weightDtype.nullish(),
    torch_dtype: weightDtype.nullish(),
  });
type RawConfig = z.output<ReturnType<typeof schemaOf>>;

/** What only the family knows of a config: which switches its `config.json` sets, and which are built in. */
export interface CausalTraits {
  readonly modelType: CausalFamily;
  readonly defaults: CausalDefaults;
  switches(raw: RawConfig): Pick<CausalConfig, 'qkNorm' | 'qkvBias' | 'outputBias' | 'mlpBias'>;
}

/**
 * Reads the `config.json` of a causal model, in the style of transformers 5 (`rope_parameters`, `dtype`) or 4
 * (`rope_theta`, `rope_scaling`, `torch_dtype`).
 *
 * @param where the file, for error messages
 * @throws UserError for a wrong value, or a kind of the family that is not supported
 */
export function parseCausalConfig(
  traits: CausalTraits,
  json: unknown,
  where: string,
  architecture: CausalArchitecture,
): CausalConfig {
  const raw = parseJsonFields(schemaOf(traits.defaults), json, where);
  refuseSlidingWindow(raw, where);
  if (raw.hidden_act !== 'silu') {
    throw unsupported(`Activation \`${raw.hidden_act}\``, where, 'Give a model with `hidden_act` silu.');
  }
  return {
    kind: 'causal',
    modelType: traits.modelType,
    architecture,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    numHiddenLayers: raw.num_hidden_layers,
    numAttentionHeads: raw.num_attention_heads,
    ...headsOf(raw, where),
    hiddenAct: 'silu',
    maxPositionEmbeddings: raw.max_position_embeddings,
    initializerRange: raw.initializer_range,
    rmsNormEps: raw.rms_norm_eps,
    rope: parseRope(raw, where),
    tieWordEmbeddings: raw.tie_word_embeddings,
    ...traits.switches(raw),
    attentionDropout: raw.attention_dropout,
    labels: isClassifier(architecture) ? labelsOf(raw, where) : [],
    bosTokenId: raw.bos_token_id,
    eosTokenIds: raw.eos_token_id,
    padTokenId: raw.pad_token_id,
    dtype: raw.dtype ?? raw.torch_dtype ?? 'float32',
  };
}

function headsOf(raw: RawConfig, where: string): Pick<CausalConfig, 'numKeyValueHeads' | 'headDim'> {
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
  return { numKeyValueHeads, headDim };
}

/** A window that holds every position is full attention; any other is refused. */
function refuseSlidingWindow(raw: RawConfig, where: string): void {
  const other = raw.layer_types?.find((type) => type !== 'full_attention');
  const sliding =
    raw.layer_types == null
      ? raw.use_sliding_window && raw.max_window_layers < raw.num_hidden_layers
      : other === 'sliding_attention';
  const narrow = sliding && raw.sliding_window !== null && raw.sliding_window < raw.max_position_embeddings;
  if (narrow || (other !== undefined && other !== 'sliding_attention')) {
    throw unsupported(
      `Attention of type \`${other ?? 'sliding_attention'}\``,
      where,
      'Give a model with full attention.',
    );
  }
}

/** What the `config.json` of every family says, so that transformers 5 and 4 both read it. */
export function causalToHuggingFace(config: CausalConfig): Record<string, unknown> {
  const [firstEos, ...otherEos] = config.eosTokenIds;
  return {
    architectures: [config.architecture],
    attention_dropout: config.attentionDropout,
    bos_token_id: config.bosTokenId,
    dtype: config.dtype,
    eos_token_id: otherEos.length > 0 ? config.eosTokenIds : (firstEos ?? null),
    head_dim: config.headDim,
    hidden_act: config.hiddenAct,
    hidden_size: config.hiddenSize,
    ...(isClassifier(config.architecture) && labelsToHuggingFace(config.labels)),
    initializer_range: config.initializerRange,
    intermediate_size: config.intermediateSize,
    max_position_embeddings: config.maxPositionEmbeddings,
    model_type: config.modelType,
    num_attention_heads: config.numAttentionHeads,
    num_hidden_layers: config.numHiddenLayers,
    num_key_value_heads: config.numKeyValueHeads,
    pad_token_id: config.padTokenId,
    rms_norm_eps: config.rmsNormEps,
    ...ropeToHuggingFace(config.rope),
    tie_word_embeddings: config.tieWordEmbeddings,
    use_cache: true,
    vocab_size: config.vocabSize,
  };
}

/** How Qwen's configs say that every layer attends to everything. */
export const fullAttentionToHuggingFace = (config: CausalConfig): Record<string, unknown> => ({
  layer_types: Array<string>(config.numHiddenLayers).fill('full_attention'),
  max_window_layers: config.numHiddenLayers,
  sliding_window: null,
  use_sliding_window: false,
});
