import type { Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import { cast, constant, cos, mul, reshape, sin } from '../ops/build.js';

/** Rotary position embedding (Su et al., 2021, https://arxiv.org/abs/2104.09864) and how it is stretched. */
export type Rope =
  | { readonly type: 'default'; readonly theta: number }
  /** Positions divided by `factor` (Chen et al., 2023, https://arxiv.org/abs/2306.15595). */
  | { readonly type: 'linear'; readonly theta: number; readonly factor: number }
  /** Low frequencies divided by `factor`, high ones kept, those between interpolated (Llama 3.1). */
  | {
      readonly type: 'llama3';
      readonly theta: number;
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    }
  /** YaRN (Peng et al., 2023, https://arxiv.org/abs/2309.00071); cos and sin are scaled by `attentionFactor`. */
  | {
      readonly type: 'yarn';
      readonly theta: number;
      readonly factor: number;
      readonly originalMaxPositionEmbeddings: number;
      readonly attentionFactor: number;
      /** Rotations over the original length from which a dimension is kept, and below which it is stretched. */
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Borders between the two fall on whole dimensions. */
      readonly truncate: boolean;
    };

/** The angle per position of each pair of a head, float32 values: (headDim / 2). */
export function rotaryFrequencies(rope: Rope, headDim: number): number[] {
  const stretch = stretchOf(rope, headDim);
  return Array.from({ length: headDim / 2 }, (_, i) =>
    Math.fround(stretch(1 / Math.pow(rope.theta, (2 * i) / headDim), i)),
  );
}

/** What a kind of scaling makes of a frequency, the i-th pair's. */
function stretchOf(rope: Rope, headDim: number): (frequency: number, i: number) => number {
  switch (rope.type) {
    case 'default':
      return (frequency) => frequency;
    case 'linear':
      return (frequency) => frequency / rope.factor;
    case 'llama3': {
      const { lowFreqFactor: low, highFreqFactor: high, originalMaxPositionEmbeddings: length } = rope;
      return (frequency) => {
        const rotations = (length * frequency) / (2 * Math.PI);
        const kept = Math.min(1, Math.max(0, (rotations - low) / (high - low)));
        return blend(frequency, frequency / rope.factor, kept);
      };
    }
    case 'yarn': {
      const [start, end] = yarnRamp(rope, headDim);
      return (frequency, i) => {
        const stretched = Math.min(1, Math.max(0, (i - start) / (end - start)));
        return blend(frequency, frequency / rope.factor, 1 - stretched);
      };
    }
  }
}

const blend = (a: number, b: number, share: number): number => share * a + (1 - share) * b;

/** The pairs between which YaRN goes over from kept to stretched: those that turn betaFast and betaSlow times. */
function yarnRamp(
  { theta, originalMaxPositionEmbeddings, betaFast, betaSlow, truncate }: Extract<Rope, { type: 'yarn' }>,
  headDim: number,
): [number, number] {
  const pairTurning = (times: number): number =>
    (headDim * Math.log(originalMaxPositionEmbeddings / (times * 2 * Math.PI))) / (2 * Math.log(theta));
  const [low, high] = [pairTurning(betaFast), pairTurning(betaSlow)];
  const start = Math.max(0, truncate ? Math.floor(low) : low);
  const end = Math.min(headDim - 1, truncate ? Math.ceil(high) : high);
  return [start, start === end ? end + 0.001 : end];
}

/** cos and sin of position · frequency: positions int32 (…) → two of (…, 1, D/2). */
export function rotaryAngles(
  positions: Value,
  headDim: number,
  rope: Rope,
  dtype: DType,
): { cosines: Value; sines: Value } {
  const frequency = constant(positions.graph, dtype, [headDim / 2], rotaryFrequencies(rope, headDim));
  const angles = mul(reshape(cast(positions, dtype), [...positions.shape, 1, 1]), frequency);
  if (rope.type !== 'yarn') return { cosines: cos(angles), sines: sin(angles) };
  return { cosines: mul(cos(angles), rope.attentionFactor), sines: mul(sin(angles), rope.attentionFactor) };
}
