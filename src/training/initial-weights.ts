import type { Value } from '../graph/graph.js';
import { elementCount, wrap, type Tensor } from '../graph/tensor.js';
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
  const weights = new Map<string, Tensor<'float32'>>();
  for (const [name, { shape }] of parameters) {
    const sizes = shape as readonly number[];
    const data = new Float32Array(elementCount(sizes));
    if (sizes.length > 1) {
      const random = stream(seed, 'initial', name);
      for (let i = 0; i < data.length; i++) data[i] = std * random.normal();
    } else if (!name.endsWith('bias')) data.fill(1);
    weights.set(name, wrap('float32', sizes, data));
  }
  return weights;
}
