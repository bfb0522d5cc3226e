import type { Value } from '../graph/graph.js';
import { wrap, type Tensor } from '../graph/tensor.js';
import { paddingBias, splitHeads } from '../nn/attention.js';
import type { ModelContext } from '../nn/context.js';
import {
  addEmbedding,
  firstToken,
  headDense,
  maskedHead,
  positionEmbeddings,
  postNormBlock,
  type Judged,
  typeEmbeddings,
  wordEmbeddings,
} from '../nn/encoder.js';
import { layerNorm, linear } from '../nn/layers.js';
import { add, gatherRows, matmul, mul, reshape, softmax, transpose } from '../ops/build.js';
import { firstPosition, type BertConfig } from './config/bert.js';
import type { PaddedTokens } from './padded-tokens.js';

export interface BertInputs {
  /** int32 (B, T). */
  readonly inputIds: Value;
  /** int32 (B, T), 1 = a real token. */
  readonly attentionMask: Value;
  /** int32 (B, T): rows of the table of positions. */
  readonly positionIds: Value;
  /** int32 (B, T). */
  readonly tokenTypeIds: Value;
}

/** Declares the feeds: `input_ids`, `attention_mask`, `position_ids`, `token_type_ids`. */
export function bertInputs({ graph }: ModelContext): BertInputs {
  const shape = ['B', 'T'];
  return {
    inputIds: graph.input('input_ids', 'int32', shape),
    attentionMask: graph.input('attention_mask', 'int32', shape),
    positionIds: graph.input('position_ids', 'int32', shape),
    tokenTypeIds: graph.input('token_type_ids', 'int32', shape),
  };
}

/** Feeds of a right-padded batch, all of token type 0 unless types are given. */
export function bertFeeds(config: BertConfig, tokens: PaddedTokens, tokenTypeIds?: Int32Array): Record<string, Tensor> {
  const { inputIds, attentionMask, batch, length } = tokens;
  const shape = [batch, length];
  return {
    input_ids: wrap('int32', shape, inputIds),
    attention_mask: wrap('int32', shape, attentionMask),
    position_ids: wrap('int32', shape, positions(config, tokens)),
    token_type_ids: wrap('int32', shape, tokenTypeIds ?? new Int32Array(batch * length)),
  };
}

/** BERT counts every token; RoBERTa those that are no padding, and gives padding the position `padTokenId`. */
function positions(config: BertConfig, { inputIds, attentionMask, length }: PaddedTokens): Int32Array {
  if (config.modelType === 'bert') return inputIds.map((_, at) => at % length);
  let next = firstPosition(config);
  return inputIds.map((id, at) => {
    if (at % length === 0) next = firstPosition(config);
    return attentionMask[at] === 0 || id === config.padTokenId ? config.padTokenId! : next++;
  });
}

/** Token ids → hidden states (B, T, hiddenSize). `states[0]` is the embedding, `states[i]` the output of block i, the last one's of those that are judged. */
export function bertHidden(
  context: ModelContext,
  config: BertConfig,
  inputs: BertInputs,
  judged: Judged = 'all',
): { hidden: Value; states: Value[] } {
  const model = config.modelType;
  const words = gatherRows(wordEmbeddings(context, config, model), inputs.inputIds);
  const typed = addEmbedding(words, typeEmbeddings(context, config, model), inputs.tokenTypeIds);
  const placed = addEmbedding(typed, positionEmbeddings(context, config, model), inputs.positionIds);
  const normed = layerNorm(context, placed, `${model}.embeddings.LayerNorm`, config.layerNormEps);
  let x = context.dropout(normed, config.hiddenDropoutProb);
  const states = [x];
  const bias = paddingBias(inputs.attentionMask, context.dtype);
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    x = postNormBlock(context, config, `${model}.encoder.layer.${layer}`, x, {
      mix: (module, input) => selfAttention(context, config, module, input, bias),
      judged: layer === config.numHiddenLayers - 1 ? judged : 'all',
    });
    states.push(x);
  }
  return { hidden: x, states };
}

/** softmax(q·kᵀ/√D + bias)·v for each head, bias (B, 1, 1, T): x (B, T, H) → (B, T, H). */
function selfAttention(context: ModelContext, config: BertConfig, module: string, x: Value, bias: Value): Value {
  const { hiddenSize, numAttentionHeads: heads } = config;
  const project = (name: string): Value => {
    const projected = linear(context, x, `${module}.${name}`, { inputs: hiddenSize, outputs: hiddenSize, bias: true });
    return transpose(splitHeads(projected, heads), [0, 2, 1, 3]); // (B, heads, T, D)
  };
  const query = mul(project('query'), 1 / Math.sqrt(hiddenSize / heads));
  const scores = add(matmul(query, project('key'), { transB: true }), bias);
  const weights = context.dropout(softmax(scores), config.attentionProbsDropoutProb);
  const mixed = transpose(matmul(weights, project('value')), [0, 2, 1, 3]);
  return reshape(mixed, [x.shape[0]!, x.shape[1]!, hiddenSize]);
}

/** Logits of the classes from the first token: hidden (B, T, H) → (B, labels). */
export function bertClassify(context: ModelContext, config: BertConfig, hidden: Value): Value {
  const drop = (x: Value): Value => context.dropout(x, config.classifierDropout);
  const sizes = { inputs: config.hiddenSize, outputs: config.labels.length, bias: true };
  if (config.modelType === 'roberta') {
    const dense = headDense(context, config, drop(firstToken(hidden)), 'classifier.dense', 'tanh');
    return linear(context, drop(dense), 'classifier.out_proj', sizes);
  }
  const pooled = headDense(context, config, firstToken(hidden), 'bert.pooler.dense', 'tanh');
  return linear(context, drop(pooled), 'classifier', sizes);
}

/** Logits over the vocabulary for masked tokens: rows (N, H) → (N, vocabSize). */
export function bertMaskedLogits(context: ModelContext, config: BertConfig, rows: Value): Value {
  return config.modelType === 'roberta'
    ? maskedHead(context, config, rows, {
        model: 'roberta',
        dense: 'lm_head.dense',
        norm: 'lm_head.layer_norm',
        bias: 'lm_head.bias',
        activation: 'gelu',
      })
    : maskedHead(context, config, rows, {
        model: 'bert',
        dense: 'cls.predictions.transform.dense',
        norm: 'cls.predictions.transform.LayerNorm',
        bias: 'cls.predictions.bias',
      });
}
