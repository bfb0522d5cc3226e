import { mulDims, type Dim } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import type { Tensor } from '../graph/tensor.js';
import { tensor, wrap } from '../graph/tensor.js';
import { paddingBias, relativeShift, splitHeads } from '../nn/attention.js';
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
import { activations, layerNorm, linear } from '../nn/layers.js';
import {
  add,
  cast,
  concat,
  gatherRows,
  iota,
  matmul,
  mul,
  reshape,
  slice,
  softmax,
  transpose,
  zerosOf,
} from '../ops/build.js';
import type { DebertaV2Config } from './config/deberta-v2.js';
import type { PaddedTokens } from './padded-tokens.js';

export interface DebertaV2Inputs {
  /** int32 (B, T). */
  readonly inputIds: Value;
  /** int32 (B, T), 1 = a real token. */
  readonly attentionMask: Value;
  /** int32 (2, 2T): the relative embedding of each distance that occurs; see the function of that name. */
  readonly relativeIndex: Value;
}

/** Declares the feeds: `input_ids`, `attention_mask`, `relative_index`. */
export function debertaV2Inputs({ graph }: ModelContext, batch: Dim = 'B', length: Dim = 'T'): DebertaV2Inputs {
  return {
    inputIds: graph.input('input_ids', 'int32', [batch, length]),
    attentionMask: graph.input('attention_mask', 'int32', [batch, length]),
    relativeIndex: graph.input('relative_index', 'int32', [2, mulDims(2, length)]),
  };
}

/** Feeds of a right-padded batch. */
export function debertaV2Feeds(config: DebertaV2Config, tokens: PaddedTokens): Record<string, Tensor> {
  const shape = [tokens.batch, tokens.length];
  return {
    input_ids: wrap('int32', shape, tokens.inputIds),
    attention_mask: wrap('int32', shape, tokens.attentionMask),
    relative_index: relativeIndex(config, tokens.length),
  };
}

/** Distances that have an embedding, on each side. */
const span = (config: DebertaV2Config): number =>
  config.positionBuckets > 0 ? config.positionBuckets : config.maxRelativePositions;

/**
 * The `relative_index` feed for sequences of a length T, int32 (2, 2T): for each distance d = i − j of a query from a key the
 * row clamp(bucket(d) + span, 0, 2·span − 1) of the relative embeddings. The first row counts d down from T − 1, for
 * what a query asks of positions, the second up from 1 − T, for what a key asks; see `relativeShift`. Near distances
 * have a bucket each, far ones share buckets that grow logarithmically; computed in float32 as the reference does, so
 * that borders fall alike.
 */
export function relativeIndex(config: DebertaV2Config, length: number): Tensor<'int32'> {
  const [reach, last] = [span(config), 2 * span(config) - 1];
  const rowOf = (distance: number): number => Math.min(last, Math.max(0, bucketOf(distance, config) + reach));
  const offsets = Array.from({ length: 2 * length }, (_, column) => column - (length - 1));
  return tensor('int32', [2, 2 * length], [...offsets.map((offset) => rowOf(-offset)), ...offsets.map(rowOf)]);
}

function bucketOf(distance: number, { positionBuckets, maxRelativePositions }: DebertaV2Config): number {
  const middle = Math.floor(positionBuckets / 2);
  if (positionBuckets === 0 || Math.abs(distance) <= middle) return distance;
  const f = Math.fround;
  const share = f(f(Math.log(f(Math.abs(distance) / middle))) / f(Math.log(f((maxRelativePositions - 1) / middle))));
  return Math.sign(distance) * (Math.ceil(f(share * (middle - 1))) + middle);
}

/**
 * DeBERTa-v2 (He et al., 2021, https://arxiv.org/abs/2006.03654): token ids → hidden states (B, T, hiddenSize).
 * `states[0]` is the embedding, `states[i]` the output of block i, the last one's of those that are judged.
 */
export function debertaV2Hidden(
  context: ModelContext,
  config: DebertaV2Config,
  inputs: DebertaV2Inputs,
  judged: Judged = 'all',
): { hidden: Value; states: Value[] } {
  const [batch, length] = [inputs.inputIds.shape[0]!, inputs.inputIds.shape[1]!];
  const present = reshape(cast(inputs.attentionMask, context.dtype), [batch, length, 1]);
  const embedded = embed(context, config, inputs, present);
  const positions = relativeEmbeddings(context, config);
  const bias = reshape(paddingBias(inputs.attentionMask, context.dtype), [batch, 1, length]); // over (H, B, T, T)
  const states = [embedded];
  let x = embedded;
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const convolved = layer === 0 && config.convKernelSize > 0;
    x = postNormBlock(context, config, `deberta.encoder.layer.${layer}`, x, {
      mix: (module, input) =>
        disentangledAttention(context, config, module, input, { bias, positions, index: inputs.relativeIndex }),
      judged: layer === config.numHiddenLayers - 1 && !convolved ? judged : 'all',
    });
    if (convolved) x = convolution(context, config, embedded, x, present);
    states.push(x);
  }
  return { hidden: x, states };
}

const dropHidden = (context: ModelContext, config: DebertaV2Config, x: Value): Value =>
  context.dropout(x, config.hiddenDropoutProb);

function embed(context: ModelContext, config: DebertaV2Config, { inputIds }: DebertaV2Inputs, present: Value): Value {
  let x = gatherRows(wordEmbeddings(context, config, 'deberta'), inputIds);
  if (config.positionBiasedInput) {
    const table = positionEmbeddings(context, config, 'deberta');
    x = addEmbedding(x, table, iota(context.graph, inputIds.shape[1]!));
  }
  if (config.typeVocabSize > 0) x = add(x, slice(typeEmbeddings(context, config, 'deberta'), 0, 0, 1));
  const normed = layerNorm(context, x, 'deberta.embeddings.LayerNorm', config.layerNormEps);
  return dropHidden(context, config, mul(normed, present));
}

/** The table of relative position embeddings, (2·span, hiddenSize), or none. */
function relativeEmbeddings(context: ModelContext, config: DebertaV2Config): Value | undefined {
  if (!config.relativeAttention) return undefined;
  const table = context.weight('deberta.encoder.rel_embeddings.weight', [2 * span(config), config.hiddenSize]);
  return config.normRelEbd === 'layer_norm'
    ? layerNorm(context, table, 'deberta.encoder.LayerNorm', config.layerNormEps)
    : table;
}

interface AttentionSetting {
  readonly bias: Value;
  readonly positions: Value | undefined;
  readonly index: Value;
}

/**
 * Content attends to content, content to position (c2p), and position to content (p2c), each over the same scale:
 * score(i, j) = (q_i·k_j + q_i·kʳ_δ(i,j) + k_j·qʳ_δ(i,j)) / √(terms·D), softmax over j.
 */
function disentangledAttention(
  context: ModelContext,
  config: DebertaV2Config,
  module: string,
  x: Value,
  { bias, positions, index }: AttentionSetting,
): Value {
  const { numAttentionHeads: heads, hiddenSize } = config;
  const size = hiddenSize / heads;
  const [batch, length] = [x.shape[0]!, x.shape[1]!];
  const sizes = { inputs: hiddenSize, outputs: hiddenSize, bias: true };
  const project = (from: Value, name: string): Value => linear(context, from, `${module}.${name}`, sizes);
  // Heads first: what is the same for all texts then multiplies the rows of all texts in one product a head.
  const perHeads = (from: Value): Value => transpose(splitHeads(from, heads), [2, 0, 1, 3]); // (H, B, T, D)
  const terms = positions === undefined ? [] : config.posAttType;
  const scale = 1 / Math.sqrt(size * (1 + terms.length));
  const query = mul(perHeads(project(x, 'query_proj')), scale);
  const key = perHeads(project(x, 'key_proj'));
  const value = perHeads(project(x, 'value_proj'));
  let scores = matmul(query, key, { transB: true });

  if (positions !== undefined && terms.length > 0) {
    const table = context.dropout(positions, config.hiddenDropoutProb, null);
    const columns = mulDims(2, length);
    /** (H, B, T, D) against the embeddings of the distances in one of the index's orders: (H, B, T, T). */
    const againstPositions = (rows: Value, name: string, order: 0 | 1): Value => {
      const rowsIn = (from: Value): Value => gatherRows(from, reshape(slice(index, 0, order, order + 1), [columns]));
      // An adapter drops elements of the table, whose rows are the same however far texts are padded.
      const dropped = (rate: number): Value => rowsIn(context.dropout(table, rate, null));
      const embeddings = linear(context, rowsIn(table), `${module}.${name}`, { ...sizes, dropped });
      const projected = transpose(reshape(embeddings, [columns, heads, size]), [1, 0, 2]); // (H, 2T, D)
      const flat = reshape(rows, [heads, mulDims(batch, length), size]);
      const all = matmul(flat, projected, { transB: true });
      return relativeShift(reshape(all, [heads, batch, length, columns]));
    };
    if (terms.includes('c2p')) {
      scores = add(scores, againstPositions(query, config.shareAttKey ? 'key_proj' : 'pos_key_proj', 0));
    }
    if (terms.includes('p2c')) {
      const name = config.shareAttKey ? 'query_proj' : 'pos_query_proj';
      const byKey = againstPositions(mul(key, scale), name, 1); // row j holds key j against every query
      scores = add(scores, transpose(byKey, [0, 1, 3, 2]));
    }
  }
  const weights = context.dropout(softmax(add(scores, bias)), config.attentionProbsDropoutProb, 1);
  const mixed = transpose(matmul(weights, value), [1, 2, 0, 3]); // (B, T, H, D)
  return reshape(mixed, [batch, length, hiddenSize]);
}

/** The convolution of larger DeBERTa-v2 models: over the embedding, added to the first block's output. */
function convolution(context: ModelContext, config: DebertaV2Config, embedded: Value, x: Value, present: Value): Value {
  const { hiddenSize, convKernelSize: width, convGroups: groups } = config;
  const module = 'deberta.encoder.conv';
  const perGroup = hiddenSize / groups;
  const weight = context.weight(`${module}.conv.weight`, [hiddenSize, perGroup, width]);
  const [batch, length] = [embedded.shape[0]!, embedded.shape[1]!];
  const margin = zerosOf(context.graph, context.dtype, [batch, (width - 1) / 2, hiddenSize]);
  const padded = width === 1 ? embedded : concat([margin, embedded, margin], 1);
  const outputs = Array.from({ length: groups }, (_, group) => {
    const [start, end] = [group * perGroup, (group + 1) * perGroup];
    return Array.from({ length: width }, (_unused, tap) => {
      const shifted = slice(
        slice(padded, 1, tap, typeof length === 'number' ? tap + length : `${length}+${tap}`),
        2,
        start,
        end,
      );
      const matrix = reshape(slice(slice(weight, 0, start, end), 2, tap, tap + 1), [perGroup, perGroup]);
      return matmul(shifted, matrix, { transB: true });
    }).reduce(add);
  });
  const convolved = add(concat(outputs, 2), context.weight(`${module}.conv.bias`, [hiddenSize]));
  const activated = activations[config.convAct](dropHidden(context, config, mul(convolved, present)));
  return mul(layerNorm(context, add(x, activated), `${module}.LayerNorm`, config.layerNormEps), present);
}

/** Logits of the classes from the first token: hidden (B, T, H) → (B, labels). */
export function debertaV2Classify(context: ModelContext, config: DebertaV2Config, hidden: Value): Value {
  const first = context.dropout(firstToken(hidden), config.poolerDropout);
  const dense = headDense(context, config, first, 'pooler.dense', config.poolerHiddenAct);
  const pooled = context.dropout(dense, config.classifierDropout);
  return linear(context, pooled, 'classifier', {
    inputs: config.hiddenSize,
    outputs: config.labels.length,
    bias: true,
  });
}

/** Logits over the vocabulary for masked tokens: rows (N, H) → (N, vocabSize). */
export function debertaV2MaskedLogits(context: ModelContext, config: DebertaV2Config, rows: Value): Value {
  return config.legacy
    ? maskedHead(context, config, rows, {
        model: 'deberta',
        dense: 'cls.predictions.transform.dense',
        norm: 'cls.predictions.transform.LayerNorm',
        bias: 'cls.predictions.bias',
      })
    : maskedHead(context, config, rows, {
        model: 'deberta',
        dense: 'lm_predictions.lm_head.dense',
        norm: 'lm_predictions.lm_head.LayerNorm',
        bias: 'lm_predictions.lm_head.bias',
      });
}
