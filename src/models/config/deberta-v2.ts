import { z } from 'zod';
import {
  activation,
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
  unsupported,
  weightDtype,
  type Activation,
  type WeightDtype,
} from './fields.js';

export const debertaV2Architectures = [
  'DebertaV2ForSequenceClassification',
  'DebertaV2ForMaskedLM',
  'DebertaV2Model',
] as const;
export type DebertaV2Architecture = (typeof debertaV2Architectures)[number];

/** Terms of disentangled attention besides content to content. */
export type PositionAttention = 'c2p' | 'p2c';

/** A DeBERTa-v2 encoder (https://arxiv.org/abs/2006.03654), as `config.json` describes it. */
export interface DebertaV2Config {
  readonly kind: 'encoder';
  readonly modelType: 'deberta-v2';
  readonly architecture: DebertaV2Architecture;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly hiddenAct: Activation;
  readonly hiddenDropoutProb: number;
  readonly attentionProbsDropoutProb: number;
  readonly layerNormEps: number;
  /** Standard deviation of freshly made weights. */
  readonly initializerRange: number;
  readonly maxPositionEmbeddings: number;
  /** 0: no token types. */
  readonly typeVocabSize: number;
  /** Absolute position embeddings are added to the input. */
  readonly positionBiasedInput: boolean;
  readonly relativeAttention: boolean;
  /** Distances beyond it are clipped. */
  readonly maxRelativePositions: number;
  /** Log buckets of relative positions on each side; 0: every distance has its own embedding. */
  readonly positionBuckets: number;
  readonly normRelEbd: 'none' | 'layer_norm';
  /** Positions are projected by the content's query and key projections. */
  readonly shareAttKey: boolean;
  readonly posAttType: readonly PositionAttention[];
  /** 0: no convolution after the first block; else odd. */
  readonly convKernelSize: number;
  readonly convGroups: number;
  readonly convAct: Activation;
  readonly poolerDropout: number;
  readonly poolerHiddenAct: Activation;
  readonly classifierDropout: number;
  /** Labels by their index. */
  readonly labels: readonly string[];
  /** The masked-LM head is named `cls.predictions`; otherwise `lm_predictions.lm_head`. */
  readonly legacy: boolean;
  readonly tieWordEmbeddings: boolean;
  readonly padTokenId: number | null;
  readonly dtype: WeightDtype;
}

const separated = z.preprocess(
  (value) =>
    typeof value === 'string'
      ? value
          .toLowerCase()
          .split('|')
          .map((part) => part.trim())
      : value,
  z.array(z.string()),
);

/** The fields that are read, with the defaults of transformers' DebertaV2Config and of the modules that read them. */
const schema = z.object({
  vocab_size: orDefault(count, 128100),
  hidden_size: orDefault(count, 1536),
  embedding_size: count.nullish(),
  attention_head_size: count.nullish(),
  intermediate_size: orDefault(count, 6144),
  num_hidden_layers: orDefault(listable, 24),
  num_attention_heads: orDefault(count, 24),
  hidden_act: orDefault(activation, 'gelu'),
  hidden_dropout_prob: orDefault(probability, 0.1),
  attention_probs_dropout_prob: orDefault(probability, 0.1),
  layer_norm_eps: orDefault(z.number().positive(), 1e-7),
  initializer_range: orDefault(z.number().nonnegative(), 0.02),
  max_position_embeddings: orDefault(count, 512),
  type_vocab_size: orDefault(natural, 0),
  position_biased_input: orDefault(z.boolean(), true),
  relative_attention: orDefault(z.boolean(), false),
  max_relative_positions: orDefault(z.int(), -1),
  position_buckets: orDefault(z.int(), -1),
  norm_rel_ebd: orDefault(separated, ['none']),
  share_att_key: orDefault(z.boolean(), false),
  pos_att_type: orDefault(separated, []),
  conv_kernel_size: orDefault(natural, 0),
  conv_groups: orDefault(count, 1),
  conv_act: orDefault(activation, 'tanh'),
  pooler_hidden_size: count.nullish(),
  pooler_dropout: orDefault(probability, 0),
  pooler_hidden_act: orDefault(activation, 'gelu'),
  cls_dropout: probability.nullish(),
  ...labelFields,
  legacy: orDefault(z.boolean(), true),
  tie_word_embeddings: orDefault(z.boolean(), true),
  pad_token_id: tokenId.default(0),
  dtype: weightDtype.nullish(),
  torch_dtype: weightDtype.nullish(),
});
type RawConfig = z.output<typeof schema>;

/**
 * Reads a DeBERTa-v2 (or v3) `config.json`.
 *
 * @param where the file, for error messages
 * @throws UserError for a wrong value, or a kind of DeBERTa that is not supported
 */
export function parseDebertaV2Config(
  json: unknown,
  where: string,
  architecture: DebertaV2Architecture,
): DebertaV2Config {
  const raw = parseJsonFields(schema, json, where);
  checkSizes(raw, where);
  return {
    kind: 'encoder',
    modelType: 'deberta-v2',
    architecture,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    numHiddenLayers: raw.num_hidden_layers,
    numAttentionHeads: raw.num_attention_heads,
    hiddenAct: raw.hidden_act,
    hiddenDropoutProb: raw.hidden_dropout_prob,
    attentionProbsDropoutProb: raw.attention_probs_dropout_prob,
    layerNormEps: raw.layer_norm_eps,
    initializerRange: raw.initializer_range,
    maxPositionEmbeddings: raw.max_position_embeddings,
    typeVocabSize: raw.type_vocab_size,
    positionBiasedInput: raw.position_biased_input,
    relativeAttention: raw.relative_attention,
    maxRelativePositions: raw.max_relative_positions < 1 ? raw.max_position_embeddings : raw.max_relative_positions,
    positionBuckets: Math.max(0, raw.position_buckets),
    normRelEbd: raw.norm_rel_ebd.includes('layer_norm') ? 'layer_norm' : 'none',
    shareAttKey: raw.share_att_key,
    posAttType: raw.pos_att_type.map((term) => positionAttention(term, where)),
    convKernelSize: raw.conv_kernel_size,
    convGroups: raw.conv_groups,
    convAct: raw.conv_act,
    poolerDropout: raw.pooler_dropout,
    poolerHiddenAct: raw.pooler_hidden_act,
    classifierDropout: raw.cls_dropout ?? raw.hidden_dropout_prob,
    labels: labelsOf(raw, where),
    legacy: raw.legacy,
    tieWordEmbeddings: raw.tie_word_embeddings,
    padTokenId: raw.pad_token_id,
    dtype: raw.dtype ?? raw.torch_dtype ?? 'float32',
  };
}

function checkSizes(raw: RawConfig, where: string): void {
  const headSize = raw.hidden_size / raw.num_attention_heads;
  if (!Number.isInteger(headSize)) {
    throw contradiction(`hidden_size ${raw.hidden_size} is not divisible by ${raw.num_attention_heads} heads.`, where);
  }
  const given = [
    ['embedding_size', raw.embedding_size, raw.hidden_size],
    ['pooler_hidden_size', raw.pooler_hidden_size, raw.hidden_size],
    ['attention_head_size', raw.attention_head_size, headSize],
  ] as const;
  for (const [key, value, expected] of given) {
    if (value != null && value !== expected) {
      throw unsupported(
        `\`${key}\` ${value}`,
        where,
        `Give a model where it is ${expected}, as its other sizes imply.`,
      );
    }
  }
  if (raw.conv_kernel_size > 0 && raw.conv_kernel_size % 2 === 0) {
    throw contradiction(
      `A convolution of width ${raw.conv_kernel_size} would change the length: it must be odd.`,
      where,
    );
  }
  if (raw.hidden_size % raw.conv_groups !== 0) {
    throw contradiction(`hidden_size ${raw.hidden_size} is not divisible by ${raw.conv_groups} conv_groups.`, where);
  }
}

function positionAttention(term: string, where: string): PositionAttention {
  if (term === 'c2p' || term === 'p2c') return term;
  throw unsupported(`\`pos_att_type\` ${term}`, where, 'Give a model that uses c2p and p2c only.');
}

/** The `config.json` of a DeBERTa-v2 model, as transformers reads it. */
export function debertaV2ToHuggingFace(config: DebertaV2Config): Record<string, unknown> {
  return {
    architectures: [config.architecture],
    attention_probs_dropout_prob: config.attentionProbsDropoutProb,
    cls_dropout: config.classifierDropout,
    ...(config.convKernelSize > 0 && {
      conv_act: config.convAct,
      conv_groups: config.convGroups,
      conv_kernel_size: config.convKernelSize,
    }),
    dtype: config.dtype,
    hidden_act: config.hiddenAct,
    hidden_dropout_prob: config.hiddenDropoutProb,
    hidden_size: config.hiddenSize,
    ...labelsToHuggingFace(config.labels),
    initializer_range: config.initializerRange,
    intermediate_size: config.intermediateSize,
    layer_norm_eps: config.layerNormEps,
    legacy: config.legacy,
    max_position_embeddings: config.maxPositionEmbeddings,
    max_relative_positions: config.maxRelativePositions,
    model_type: config.modelType,
    norm_rel_ebd: config.normRelEbd,
    num_attention_heads: config.numAttentionHeads,
    num_hidden_layers: config.numHiddenLayers,
    pad_token_id: config.padTokenId,
    pooler_dropout: config.poolerDropout,
    pooler_hidden_act: config.poolerHiddenAct,
    pooler_hidden_size: config.hiddenSize,
    pos_att_type: config.posAttType,
    position_biased_input: config.positionBiasedInput,
    position_buckets: config.positionBuckets > 0 ? config.positionBuckets : -1,
    relative_attention: config.relativeAttention,
    share_att_key: config.shareAttKey,
    tie_word_embeddings: config.tieWordEmbeddings,
    type_vocab_size: config.typeVocabSize,
    vocab_size: config.vocabSize,
  };
}
