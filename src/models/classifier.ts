import type { Value } from '../graph/graph.js';
import { wrap, type Tensor } from '../graph/tensor.js';
import type { ModelContext } from '../nn/context.js';
import { linear } from '../nn/layers.js';
import { broadcastTo, gatherElements, reshape, transpose } from '../ops/build.js';
import { causalFeeds, causalHidden, causalInputs } from './causal.js';
import type { CausalConfig } from './config/causal.js';
import type { ModelConfig } from './config/model-config.js';
import { encoderClassify, encoderFeeds, encoderHidden } from './encoder.js';
import type { PaddedTokens } from './padded-tokens.js';
import { repeatRows } from './repeat-rows.js';

/**
 * Declares a classifier's feeds and computes its logits, (copies·B, labels), for as many copies of the batch as the
 * context asks for. An encoder judges by its first token, a causal model by its last.
 */
export function classifierLogits(context: ModelContext, config: ModelConfig): Value {
  if (config.kind === 'encoder') return encoderClassify(context, config, encoderHidden(context, config));
  const lastIndex = context.graph.input('last_index', 'int32', ['B']);
  const inputs = repeatRows({ ...causalInputs(context), lastIndex }, context.copies);
  const { hidden } = causalHidden(context, config, inputs);
  return lastScores(context, config, hidden, inputs.lastIndex);
}

/** hidden (B, T, H), lastIndex int32 (B) → the scores of each row's last token, (B, labels). */
function lastScores(context: ModelContext, config: CausalConfig, hidden: Value, lastIndex: Value): Value {
  const [batch, labels] = [hidden.shape[0]!, config.labels.length];
  const scores = linear(context, hidden, 'score', { inputs: config.hiddenSize, outputs: labels });
  const index = broadcastTo(reshape(lastIndex, [batch, 1, 1]), [batch, labels, 1]);
  return reshape(gatherElements(transpose(scores, [0, 2, 1]), index), [batch, labels]);
}

/** Feeds of a classifier for a right-padded batch. */
export function classifierFeeds(config: ModelConfig, tokens: PaddedTokens): Record<string, Tensor> {
  if (config.kind === 'encoder') return encoderFeeds(config, tokens);
  return { ...causalFeeds(tokens), last_index: wrap('int32', [tokens.batch], lastTokens(config, tokens)) };
}

/** The last token of each row that is not the padding token, as transformers finds it; without one, by the mask. */
function lastTokens(
  { padTokenId }: CausalConfig,
  { inputIds, attentionMask, batch, length }: PaddedTokens,
): Int32Array {
  return Int32Array.from({ length: batch }, (_, row) => {
    for (let t = length - 1; t > 0; t--) {
      const at = row * length + t;
      if (padTokenId === null ? attentionMask[at] === 1 : inputIds[at] !== padTokenId) return t;
    }
    return 0;
  });
}
