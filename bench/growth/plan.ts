import type { CausalConfig } from '../../src/models/config/causal.js';
import { QWEN3 } from '../random-models.js';

/** What grows, one at a time, while the rest stays as `BASE` has it. */
export const AXES = ['length', 'group', 'layers', 'steps'] as const;
export type Axis = (typeof AXES)[number];

/** The model is narrow, so that all curves take minutes: how they bend is what they show, not how high they are. */
export const BASE = { layers: 2, batch: 4, length: 64, promptLength: 46, newTokens: 32 };

const FULL: Readonly<Record<Axis, readonly number[]>> = {
  length: [64, 128, 256, 512, 768, 1024],
  group: [2, 4, 8, 12, 16],
  layers: [4, 8, 12, 16, 20, 24, 28],
  steps: [1, 10, 50, 100, 200, 500, 1000, 1500, 2000],
};
const QUICK: Readonly<Record<Axis, readonly number[]>> = { length: [8, 16], group: [2], layers: [1], steps: [1, 3] };

export const valuesOf = (axis: Axis, quick: boolean): readonly number[] => (quick ? QUICK : FULL)[axis];

/** A policy of Qwen3's structure with 128 channels. */
export const policyOf = (layers: number): CausalConfig => ({
  ...QWEN3,
  numHiddenLayers: layers,
  ...{
    vocabSize: 2048,
    hiddenSize: 128,
    intermediateSize: 384,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headDim: 32,
  },
  ...{ eosTokenIds: [2047], padTokenId: 2046 },
});

export const describeGrowth = [
  `a policy of Qwen3's structure, 128 channels, vocabulary 2,048, ${BASE.layers} layers, LoRA on all projections, float32`,
  `length: an SFT step, batch ${BASE.batch}, half of the tokens supervised`,
  `group: ${BASE.newTokens} new tokens for each completion of one prompt of ${BASE.promptLength}, and a step over all of them`,
  `layers and steps: an SFT step, batch ${BASE.batch} of ${BASE.length} tokens`,
];
