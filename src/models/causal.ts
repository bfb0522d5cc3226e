import type { Value } from '../graph/graph.js';
import { cacheBiases, cachedAttention, causalBias, groupedAttention, splitHeads } from '../nn/attention.js';
import { multiply, type ModelContext } from '../nn/context.js';
import { linear, rmsNorm } from '../nn/layers.js';
import { rotaryAngles } from '../nn/rotary.js';
import { add, gatherRows, iota, linearLogProbs, mul, reshape, rotary, silu, type TokenScores } from '../ops/build.js';
import { EMBEDDINGS, headName } from './channel-sources.js';
import type { CausalConfig } from './config/causal.js';
import { asRows, asTokens, type PackedTokens } from './packed-tokens.js';

type Attend = (layer: number, heads: { query: Value; key: Value; value: Value }) => Value;

/**
 * A causal decoder without its head: tokens → hidden states after the final norm, (S, hiddenSize). `states[i]` is the
 * input of block i, the last one the final output, as transformers lists hidden states.
 *
 * @param rows int32 (N): tokens whose states come out, (N, hiddenSize), as others are not needed; all if not given
 */
export function causalHidden(
  context: ModelContext,
  config: CausalConfig,
  tokens: PackedTokens,
  rows?: Value,
): { hidden: Value; states: Value[] } {
  const bias = causalBias(context.graph, 'T', context.dtype);
  const attend: Attend = (_, { query, key, value }) => {
    const texts = { query: asRows(query, tokens), key: asRows(key, tokens), value: asRows(value, tokens), bias };
    return asTokens(groupedAttention(context, texts, config.attentionDropout), tokens);
  };
  return blocks(context, config, { ...tokens, rows }, attend);
}

/** Logits of given rows: (N, hiddenSize) → (N, vocabSize). */
export function causalLogits(context: ModelContext, config: CausalConfig, rows: Value): Value {
  return multiply(rows, context.linearWeight(headName(config), [config.vocabSize, config.hiddenSize]));
}

/** Rows whose logits exist at a time: of 151,936 tokens those of 140 rows take 85 MB. A chunk reads the whole head twice. */
const CHUNK = 140;

/** Log-probabilities of ids int32 (N) at given rows (N, hiddenSize) by a frozen head, whose logits never exist all at once. */
export function causalScores(context: ModelContext, config: CausalConfig, rows: Value, ids: Value): TokenScores {
  const shape = [config.vocabSize, config.hiddenSize] as const;
  const name = headName(config);
  const head = context.linearWeight(name, shape);
  const scored = { hidden: rows, ids, rows: gatherRows(context.weight(name, shape), ids) };
  switch (head.form) {
    case 'float32':
      return linearLogProbs(scored, head.weight, CHUNK);
    case 'int8':
      return linearLogProbs(scored, head.matrix, CHUNK);
    case 'streamed':
      return linearLogProbs(scored, { streamed: head.weight }, CHUNK);
    default:
      throw new Error(`a head in ${head.form} writes texts; texts are scored in another form`);
  }
}

/**
 * The block stack over tokens int32 (…) at positions int32 (…); how a block attends is the caller's: over the whole
 * sequence, or over a cache. Where only some `rows` of the flattened tokens are wanted, the last block computes for them
 * alone what comes after its attention.
 */
function blocks(
  context: ModelContext,
  config: CausalConfig,
  {
    inputIds,
    positionIds,
    rows,
  }: Pick<PackedTokens, 'inputIds' | 'positionIds'> & { readonly rows: Value | undefined },
  attend: Attend,
): { hidden: Value; states: Value[] } {
  const { rmsNormEps: epsilon, headDim } = config;
  const angles = rotaryAngles(positionIds, headDim, config.rope, context.dtype);
  let x = gatherRows(context.weight(EMBEDDINGS, [config.vocabSize, config.hiddenSize]), inputIds);
  const states = [x];
  const block = (layer: number, entering: Value): Value => {
    const name = `model.layers.${layer}`;
    const normed = rmsNorm(context, entering, `${name}.input_layernorm`, epsilon);
    const project = (which: 'q' | 'k' | 'v', heads: number): Value => {
      const sizes = { inputs: config.hiddenSize, outputs: heads * headDim, bias: config.qkvBias };
      return splitHeads(linear(context, normed, `${name}.self_attn.${which}_proj`, sizes), heads);
    };
    const rotated = (which: 'q' | 'k', heads: number): Value => {
      const projected = project(which, heads);
      const unit = config.qkNorm ? rmsNorm(context, projected, `${name}.self_attn.${which}_norm`, epsilon) : projected;
      return rotary(unit, angles.cosines, angles.sines);
    };
    const mixed = attend(layer, {
      query: rotated('q', config.numAttentionHeads),
      key: rotated('k', config.numKeyValueHeads),
      value: project('v', config.numKeyValueHeads),
    });
    const isLast = layer === config.numHiddenLayers - 1;
    const wanted = (states: Value): Value => (isLast && rows !== undefined ? context.chosen(states, rows) : states);
    const attended = linear(context, wanted(mixed), `${name}.self_attn.o_proj`, {
      inputs: config.numAttentionHeads * headDim,
      outputs: config.hiddenSize,
      bias: config.outputBias,
    });
    const middle = add(wanted(entering), attended);
    const fed = rmsNorm(context, middle, `${name}.post_attention_layernorm`, epsilon);
    return add(middle, feedForward(context, config, fed, `${name}.mlp`));
  };
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const entering = x;
    x = context.block(() => block(layer, entering));
    if (layer < config.numHiddenLayers - 1) states.push(x);
  }
  const hidden = rmsNorm(context, x, 'model.norm', epsilon);
  states.push(hidden);
  return { hidden, states };
}

/** SwiGLU (Shazeer, 2020): down(silu(gate(x)) ⊙ up(x)) */
function feedForward(context: ModelContext, config: CausalConfig, x: Value, module: string): Value {
  const wide = { inputs: config.hiddenSize, outputs: config.intermediateSize, bias: config.mlpBias };
  const gate = silu(linear(context, x, `${module}.gate_proj`, wide));
  const up = linear(context, x, `${module}.up_proj`, wide);
  return linear(context, mul(gate, up), `${module}.down_proj`, {
    inputs: config.intermediateSize,
    outputs: config.hiddenSize,
    bias: config.mlpBias,
  });
}

export type CachePart = 'key' | 'value';
export const pastName = (layer: number, which: CachePart): string => `past_${which}.${layer}`;
export const freshName = (layer: number, which: CachePart): string => `fresh_${which}.${layer}`;

/**
 * One decoding step, or the prompt pass, without its head, over a key/value cache (B, kvHeads, M, headDim) for each
 * layer, of which each row fills a part: T new tokens of each row attend to it and to each other. The cache is only read;
 * what is new comes out, to be put behind what is there.
 *
 * Feeds: `input_ids` (B, T); `past_length` int32 (B), each row's tokens in the cache; `output_index` int32 (B), the row of
 * the flattened (B·T) that is wanted; `past_key.i`, `past_value.i`. Outputs: `fresh_key.i`, `fresh_value.i`
 * (B, kvHeads, T, headDim).
 *
 * @returns the wanted rows after the final norm, (B, hiddenSize)
 */
export function causalDecoder(context: ModelContext, config: CausalConfig): Value {
  const { graph, dtype } = context;
  const inputIds = graph.input('input_ids', 'int32', ['B', 'T']);
  const pastLength = graph.input('past_length', 'int32', ['B']);
  const outputIndex = graph.input('output_index', 'int32', ['B']);
  const positionIds = add(reshape(pastLength, ['B', 1]), reshape(iota(graph, 'T'), [1, 'T']));
  const biases = cacheBiases(pastLength, 'M', 'T', dtype);
  const past = (layer: number, which: CachePart): Value =>
    graph.input(pastName(layer, which), dtype, ['B', config.numKeyValueHeads, 'M', config.headDim]);
  const { hidden } = blocks(context, config, { inputIds, positionIds, rows: outputIndex }, (layer, heads) => {
    const cache = { key: past(layer, 'key'), value: past(layer, 'value') };
    const { mixed, key, value } = cachedAttention(heads, cache, biases);
    graph.output(freshName(layer, 'key'), key);
    graph.output(freshName(layer, 'value'), value);
    return mixed;
  });
  return hidden;
}
