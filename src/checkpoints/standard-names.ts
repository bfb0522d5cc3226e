import type { TensorInfo } from './safetensors.js';

/** Checkpoints converted from TensorFlow's BERT call the weight and bias of a LayerNorm `gamma` and `beta`. */
const legacy = [
  [/\bLayerNorm\.gamma$/, 'LayerNorm.weight'],
  [/\bLayerNorm\.beta$/, 'LayerNorm.bias'],
] as const;

/** A checkpoint's tensors under the names that models have today. */
export function withStandardNames(weights: ReadonlyMap<string, TensorInfo>): ReadonlyMap<string, TensorInfo> {
  if (![...weights.keys()].some((name) => legacy.some(([old]) => old.test(name)))) return weights;
  return new Map(
    [...weights.values()].map((info) => {
      const name = legacy.reduce((renamed, [old, today]) => renamed.replace(old, today), info.name);
      return [name, { ...info, name }];
    }),
  );
}
