import type { Dim } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import { elementCount, wrap, type Tensor } from '../graph/tensor.js';
import { requireTensors } from '../checkpoints/model-folder.js';
import { readFloats, type TensorInfo } from '../checkpoints/safetensors.js';
import type { InitialValue } from '../optim/optimizer.js';
import { stream } from '../random.js';

/**
 * Fresh weights as Hugging Face models start: norms 1, biases 0, matrices normal with a standard deviation of `std`;
 * each from a random stream of its own, so that one more weight leaves the others as they were.
 */
export function initialWeights(
  parameters: ReadonlyMap<string, Value>,
  std: number,
  seed: number,
): Map<string, Tensor<'float32'>> {
  return new Map(Array.from(parameters, ([name, { shape }]) => [name, initialWeight(name, shape, std, seed)]));
}

/** The same, each made when its turn comes. */
export const freshWeights = (
  parameters: ReadonlyMap<string, Value>,
  std: number,
  seed: number,
): Map<string, InitialValue> =>
  new Map(
    Array.from(parameters, ([name, { shape }]) => [name, () => Promise.resolve(initialWeight(name, shape, std, seed))]),
  );

/** The weights that a model has, each read when its turn comes; a missing one is a UserError that names it. */
export const storedWeights = (
  weights: ReadonlyMap<string, TensorInfo>,
  names: Iterable<string>,
): Map<string, InitialValue> =>
  new Map(requireTensors(weights, names).map((info) => [info.name, () => readFloats(info)]));

function initialWeight(name: string, shape: readonly Dim[], std: number, seed: number): Tensor<'float32'> {
  const sizes = shape as readonly number[];
  const data = new Float32Array(elementCount(sizes));
  if (sizes.length > 1) {
    const random = stream(seed, 'initial', name);
    for (let i = 0; i < data.length; i++) data[i] = std * random.normal();
  } else if (!name.endsWith('bias')) data.fill(1);
  return wrap('float32', sizes, data);
}
