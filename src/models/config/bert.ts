import { z } from 'zod';
import {
  activation,
  contradiction,
  count,
  labelFields,
  labelsOf,
  labelsToHuggingFace,
  listable,
  orDefault,
  parseJsonFields,
  probability,
  tokenId,
  unsupported,
  weightDtype,
  type Activation,
  type WeightDtype,
} from './fields.js';

/** Published names of the two model types, as architectures begin. */
export const bertFamilies = { bert: 'Bert', roberta: 'Roberta' } as const;
type BertFamily = keyof typeof bertFamilies;

const heads = ['ForSequenceClassification', 'ForMaskedLM', 'Model'] as const;
export type BertArchitecture = `${(typeof bertFamilies)[BertFamily]}${(typeof heads)[number]}`;

export const bertArchitectures: readonly BertArchitecture[] = heads.flatMap(
  (head) => [`Bert${head}`, `Roberta${head}`] as const,
);

/**
 * BERT (https://arxiv.org/abs/1810.04805), which MacBERT and the Chinese "RoBERTa-wwm" are too, or RoBERTa
 * (https://arxiv.org/abs/1907.11692), as `config.json` describes it. RoBERTa counts positions from `padTokenId` + 1 and
 * has other heads.
 */
export interface BertConfig {
  readonly kind: 'encoder';
  readonly modelType: BertFamily;
  readonly architecture: BertArchitecture;
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
  /** Rows of the table of positions. */
  readonly maxPositionEmbeddings: number;
  readonly typeVocabSize: number;
  readonly classifierDropout: number;
  /** Labels by their index. */
  readonly labels: readonly string[];
  readonly tieWordEmbeddings: boolean;
  readonly padTokenId: number | null;
  readonly dtype: WeightDtype;
}

/** The fields that are read, with the defaults of transformers' BertConfig and RobertaConfig. */
const schemaOf = (modelType: BertFamily) =>
  z.object({
    vocab_size: orDefault(count, modelType === 'bert' ? 30522 : 50265),
    hidden_size: orDefault(count, 768),
    intermediate_size: orDefault(count, 3072),
    num_hidden_layers: orDefault(listable, 12),
    num_attention_heads: orDefault(count, 12),
    hidden_act: orDefault(activation, 'gelu'),
    hidden_dropout_prob: orDefault(probability, 0.1),
    attention_probs_dropout_prob: orDefault(probability, 0.1),
    layer_norm_eps: orDefault(z.number().positive(), 1e-12),
    initializer_range: orDefault(z.number().nonnegative(), 0.02),
    max_position_embeddings: orDefault(count, 512),
    position_embedding_type: orDefault(z.string(), 'absolute'),
    type_vocab_size: orDefault(count, 2),
    classifier_dropout: probability.nullish(),
    is_decoder: orDefault(z.boolean(), false),
    ...labelFields,
    tie_word_embeddings: orDefault(z.boolean(), true),
    pad_token_id: tokenId.default(modelType === 'bert' ? 0 : 1),
    dtype: weightDtype.nullish(),
    torch_dtype: weightDtype.nullish(),
  });

/**
 * Reads the `config.json` of a BERT or RoBERTa.
 *
 * @param where the file, for error messages
 * @throws UserError for a wrong value, or a kind of BERT that is not supported
 */
export function parseBertConfig(json: unknown, where: string, architecture: BertArchitecture): BertConfig {
  const modelType = architecture.startsWith('Roberta') ? 'roberta' : 'bert';
  const raw = parseJsonFields(schemaOf(modelType), json, where);
  if (raw.position_embedding_type !== 'absolute') {
    throw unsupported(
      `\`position_embedding_type\` ${raw.position_embedding_type}`,
      where,
      'Give a model with absolute positions.',
    );
  }
  if (raw.is_decoder) throw unsupported('A BERT that is a decoder (`is_decoder`)', where, 'Give an encoder.');
  if (raw.hidden_size % raw.num_attention_heads !== 0) {
    throw contradiction(`hidden_size ${raw.hidden_size} is not divisible by ${raw.num_attention_heads} heads.`, where);
  }
  const offset = modelType === 'roberta' ? (raw.pad_token_id ?? NaN) + 1 : 0;
  if (!(offset < raw.max_position_embeddings)) {
    throw contradiction(
      `Positions begin after \`pad_token_id\` ${raw.pad_token_id}, and there are ${raw.max_position_embeddings}.`,
      where,
    );
  }
  return {
    kind: 'encoder',
    modelType,
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
    classifierDropout: raw.classifier_dropout ?? raw.hidden_dropout_prob,
    labels: labelsOf(raw, where),
    tieWordEmbeddings: raw.tie_word_embeddings,
    padTokenId: raw.pad_token_id,
    dtype: raw.dtype ?? raw.torch_dtype ?? 'float32',
  };
}

/** The first position of a text, as a row of the table of positions. */
export const firstPosition = ({ modelType, padTokenId }: BertConfig): number =>
  modelType === 'roberta' ? padTokenId! + 1 : 0;

/** The `config.json` of a BERT or RoBERTa, as transformers reads it. */
export function bertToHuggingFace(config: BertConfig): Record<string, unknown> {
  return {
    architectures: [config.architecture],
    attention_probs_dropout_prob: config.attentionProbsDropoutProb,
    classifier_dropout: config.classifierDropout,
    dtype: config.dtype,
    hidden_act: config.hiddenAct,
    hidden_dropout_prob: config.hiddenDropoutProb,
    hidden_size: config.hiddenSize,
    ...labelsToHuggingFace(config.labels),
    initializer_range: config.initializerRange,
    intermediate_size: config.intermediateSize,
    layer_norm_eps: config.layerNormEps,
    max_position_embeddings: config.maxPositionEmbeddings,
    model_type: config.modelType,
    num_attention_heads: config.numAttentionHeads,
    num_hidden_layers: config.numHiddenLayers,
    pad_token_id: config.padTokenId,
    position_embedding_type: 'absolute',
    tie_word_embeddings: config.tieWordEmbeddings,
    type_vocab_size: config.typeVocabSize,
    vocab_size: config.vocabSize,
  };
}
