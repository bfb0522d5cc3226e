import type { Value } from '../graph/graph.js';
import { add, gatherRows, matmul, reshape, slice } from '../ops/build.js';
import type { ModelContext } from './context.js';
import { activations, layerNorm, linear } from './layers.js';

/** What the encoders of BERT's line have in common: sizes, activation, dropout. */
export interface EncoderShape {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly maxPositionEmbeddings: number;
  readonly typeVocabSize: number;
  readonly hiddenAct: keyof typeof activations;
  readonly hiddenDropoutProb: number;
  readonly layerNormEps: number;
}

/** The table of word embeddings, (vocabSize, hiddenSize). */
export const wordEmbeddings = (context: ModelContext, shape: EncoderShape, model: string): Value =>
  context.weight(`${model}.embeddings.word_embeddings.weight`, [shape.vocabSize, shape.hiddenSize]);

/** The table of absolute positions, (maxPositionEmbeddings, hiddenSize). */
export const positionEmbeddings = (context: ModelContext, shape: EncoderShape, model: string): Value =>
  context.weight(`${model}.embeddings.position_embeddings.weight`, [shape.maxPositionEmbeddings, shape.hiddenSize]);

/** The table of token types, (typeVocabSize, hiddenSize). */
export const typeEmbeddings = (context: ModelContext, shape: EncoderShape, model: string): Value =>
  context.weight(`${model}.embeddings.token_type_embeddings.weight`, [shape.typeVocabSize, shape.hiddenSize]);

/** Whose states come out of an encoder: of all tokens, or only of the first one of each text, which classifiers judge by. */
export type Judged = 'all' | 'first';

/**
 * A post-norm block: x ← LN(x + attention(x)), x ← LN(x + FF(x)), (B, T, hiddenSize).
 *
 * @param options.mix x → what the heads read, (B, T, hiddenSize), before the attention's output projection
 * @param options.judged with `first` only what the first token needs is computed, and (B, 1, hiddenSize) comes out
 */
export const postNormBlock = (
  context: ModelContext,
  shape: EncoderShape,
  module: string,
  x: Value,
  options: BlockOptions,
): Value => context.block(() => postNorm(context, shape, module, x, options));

interface BlockOptions {
  readonly mix: (module: string, x: Value) => Value;
  readonly judged: Judged;
}

function postNorm(
  context: ModelContext,
  shape: EncoderShape,
  module: string,
  x: Value,
  { mix, judged }: BlockOptions,
): Value {
  const { hiddenSize, intermediateSize, layerNormEps } = shape;
  const drop = (y: Value): Value => context.dropout(y, shape.hiddenDropoutProb);
  const ofJudged = (states: Value): Value => (judged === 'first' ? slice(states, 1, 0, 1) : states);
  const mixed = ofJudged(mix(`${module}.attention.self`, x));
  const square = { inputs: hiddenSize, outputs: hiddenSize, bias: true };
  const attended = drop(linear(context, mixed, `${module}.attention.output.dense`, square));
  const middle = layerNorm(context, add(attended, ofJudged(x)), `${module}.attention.output.LayerNorm`, layerNormEps);
  const widen = { inputs: hiddenSize, outputs: intermediateSize, bias: true };
  const wide = linear(context, middle, `${module}.intermediate.dense`, widen);
  const narrow = { inputs: intermediateSize, outputs: hiddenSize, bias: true };
  const fed = linear(context, activations[shape.hiddenAct](wide), `${module}.output.dense`, narrow);
  return layerNorm(context, add(drop(fed), middle), `${module}.output.LayerNorm`, layerNormEps);
}

/** The first token of each row, [CLS]: hidden (B, T, H) → (B, H). */
export const firstToken = (hidden: Value): Value =>
  reshape(slice(hidden, 1, 0, 1), [hidden.shape[0]!, hidden.shape[2]!]);

/** A square linear layer with a bias and its activation, as heads begin: (N, H) → (N, H). */
export const headDense = (
  context: ModelContext,
  { hiddenSize }: EncoderShape,
  x: Value,
  module: string,
  activation: keyof typeof activations,
): Value =>
  activations[activation](linear(context, x, module, { inputs: hiddenSize, outputs: hiddenSize, bias: true }));

/** Logits over the vocabulary for masked tokens: rows (N, H) → (N, vocabSize), the decoder tied to the embeddings. */
export function maskedHead(
  context: ModelContext,
  shape: EncoderShape,
  rows: Value,
  names: {
    readonly model: string;
    readonly dense: string;
    readonly norm: string;
    readonly bias: string;
    readonly activation?: keyof typeof activations;
  },
): Value {
  const dense = headDense(context, shape, rows, names.dense, names.activation ?? shape.hiddenAct);
  const normed = layerNorm(context, dense, names.norm, shape.layerNormEps);
  const logits = matmul(normed, wordEmbeddings(context, shape, names.model), { transB: true });
  return add(logits, context.weight(names.bias, [shape.vocabSize]));
}

/** x (B, T, H) + rows of a table by int32 (B, T) or (T). */
export const addEmbedding = (x: Value, table: Value, indices: Value): Value => add(x, gatherRows(table, indices));
