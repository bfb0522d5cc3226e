import { wrap, type Tensor } from '../graph/tensor.js';
import type { DebertaV2Config } from './config/deberta-v2.js';
import { relativeIndex } from './deberta-v2.js';

/** Sequences padded on the right to one length, row after row: each array holds `batch * length` numbers. */
export interface PaddedTokens {
  readonly inputIds: Int32Array;
  /** 1 for tokens, 0 for padding. */
  readonly attentionMask: Int32Array;
  readonly batch: number;
  readonly length: number;
}

/** Feeds of a causal model for a right-padded batch. */
export function causalFeeds({ inputIds, attentionMask, batch, length }: PaddedTokens): Record<string, Tensor> {
  const positions = Int32Array.from(inputIds, (_, at) => at % length);
  const shape = [batch, length];
  return {
    input_ids: wrap('int32', shape, inputIds),
    attention_mask: wrap('int32', shape, attentionMask),
    position_ids: wrap('int32', shape, positions),
  };
}

/** Feeds of an encoder for a right-padded batch. */
export function encoderFeeds(config: DebertaV2Config, tokens: PaddedTokens): Record<string, Tensor> {
  const shape = [tokens.batch, tokens.length];
  return {
    input_ids: wrap('int32', shape, tokens.inputIds),
    attention_mask: wrap('int32', shape, tokens.attentionMask),
    relative_index: relativeIndex(config, tokens.length),
  };
}
