import type { Value } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import type { ModelContext } from '../nn/context.js';
import { linear } from '../nn/layers.js';
import { concat, gatherRows } from '../ops/build.js';
import { causalHidden } from './causal.js';
import type { CausalConfig } from './config/causal.js';
import type { ModelConfig } from './config/model-config.js';
import { encoderClassify, encoderFeeds, encoderHidden } from './encoder.js';
import { packedFeeds, packedTokens, shifted } from './packed-tokens.js';
import { sequencesOf, type PaddedTokens } from './padded-tokens.js';

/**
 * Declares a classifier's feeds and computes its logits, (copies·B, labels), for as many copies of the batch as the
 * context asks for. An encoder judges by its first token, a causal model by its last.
 */
export function classifierLogits(context: ModelContext, config: ModelConfig): Value {
  if (config.kind === 'encoder') return encoderClassify(context, config, encoderHidden(context, config, 'first'));
  const { graph, copies } = context;
  const { hidden } = causalHidden(context, config, packedTokens(context));
  const last = graph.input('last_token', 'int32', ['B']);
  const ofCopies = Array.from({ length: copies }, (_, copy) => shifted(last, copy, 'S'));
  const judged = gatherRows(hidden, concat(ofCopies, 0));
  return linear(context, judged, 'score', { inputs: config.hiddenSize, outputs: config.labels.length });
}

/** Feeds of a classifier for a right-padded batch. */
export function classifierFeeds(config: ModelConfig, tokens: PaddedTokens): Record<string, Tensor> {
  if (config.kind === 'encoder') return encoderFeeds(config, tokens);
  const sequences = sequencesOf(tokens);
  const last: number[] = [];
  let start = 0;
  for (const sequence of sequences) {
    last.push(start + lastToken(config, sequence));
    start += sequence.length;
  }
  return { ...packedFeeds(sequences), last_token: tensor('int32', [last.length], last) };
}

/** The last token that is not the padding token, as transformers finds it, or else the first; without one, the last. */
const lastToken = ({ padTokenId }: CausalConfig, sequence: readonly number[]): number =>
  padTokenId === null
    ? sequence.length - 1
    : Math.max(
        0,
        sequence.findLastIndex((id) => id !== padTokenId),
      );
