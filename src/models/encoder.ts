import type { Value } from '../graph/graph.js';
import type { Tensor } from '../graph/tensor.js';
import type { ModelContext } from '../nn/context.js';
import type { Judged } from '../nn/encoder.js';
import { bertClassify, bertFeeds, bertHidden, bertInputs, bertMaskedLogits } from './bert.js';
import type { EncoderConfig } from './config/model-config.js';
import {
  debertaV2Classify,
  debertaV2Feeds,
  debertaV2Hidden,
  debertaV2Inputs,
  debertaV2MaskedLogits,
} from './deberta-v2.js';
import type { PaddedTokens } from './padded-tokens.js';
import { repeatRows } from './repeat-rows.js';

/**
 * Declares the feeds of an encoder and computes its hidden states, (copies·B, T, hiddenSize), for as many copies of the
 * batch as the context asks for; where only the first tokens are judged, theirs may be all that comes out.
 */
export function encoderHidden(context: ModelContext, config: EncoderConfig, judged: Judged = 'all'): Value {
  const { copies } = context;
  if (config.modelType === 'deberta-v2') {
    const { relativeIndex, ...rows } = debertaV2Inputs(context);
    return debertaV2Hidden(context, config, { ...repeatRows(rows, copies), relativeIndex }, judged).hidden;
  }
  return bertHidden(context, config, repeatRows(bertInputs(context), copies), judged).hidden;
}

/** Logits of the classes: hidden (B, T, H) → (B, labels). */
export const encoderClassify = (context: ModelContext, config: EncoderConfig, hidden: Value): Value =>
  config.modelType === 'deberta-v2'
    ? debertaV2Classify(context, config, hidden)
    : bertClassify(context, config, hidden);

/** Logits over the vocabulary for masked tokens: rows (N, H) → (N, vocabSize). */
export const encoderMaskedLogits = (context: ModelContext, config: EncoderConfig, rows: Value): Value =>
  config.modelType === 'deberta-v2'
    ? debertaV2MaskedLogits(context, config, rows)
    : bertMaskedLogits(context, config, rows);

/** Feeds of an encoder for a right-padded batch. */
export const encoderFeeds = (config: EncoderConfig, tokens: PaddedTokens): Record<string, Tensor> =>
  config.modelType === 'deberta-v2' ? debertaV2Feeds(config, tokens) : bertFeeds(config, tokens);
