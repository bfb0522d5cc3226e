import type { Value } from '../graph/graph.js';
import { add, gelu, layerNorm as normalise, matmul, maximum, mul, silu, tanh, rmsNorm as rms } from '../ops/build.js';
import { isTarget, loraName, loraScale, multiply, type ModelContext } from './context.js';

/**
 * x (…, in) → (…, out) = x·Wᵀ (+ b), W (out, in) as Hugging Face stores it, plus the adapter's share where one is set.
 *
 * @param sizes.dropped x under the adapter's dropout, where its first axis is not that of the batch's rows
 */
export function linear(
  context: ModelContext,
  x: Value,
  module: string,
  sizes: { inputs: number; outputs: number; bias?: boolean; dropped?: (rate: number) => Value },
): Value {
  const { inputs, outputs, bias = false, dropped = () => context.adapterInput(x) } = sizes;
  let y = multiply(x, context.linearWeight(`${module}.weight`, [outputs, inputs]));
  if (bias) y = add(y, context.weight(`${module}.bias`, [outputs]));
  const { lora } = context;
  if (lora === undefined || !isTarget(lora, module)) return y;
  const a = context.loraWeight(loraName(module, 'A'), [lora.r, inputs]);
  const b = context.loraWeight(loraName(module, 'B'), [outputs, lora.r]);
  const low = matmul(dropped(lora.dropout), a, { transB: true });
  return add(y, matmul(mul(low, loraScale(lora)), b, { transB: true }));
}

export const rmsNorm = (context: ModelContext, x: Value, module: string, epsilon: number): Value =>
  rms(x, context.weight(`${module}.weight`, [x.shape.at(-1)!]), epsilon);

export function layerNorm(context: ModelContext, x: Value, module: string, epsilon: number): Value {
  const size = x.shape.at(-1)!;
  return normalise(x, context.weight(`${module}.weight`, [size]), context.weight(`${module}.bias`, [size]), epsilon);
}

/** Activations by the names that Hugging Face configs give them; `gelu` is the exact one. */
export const activations: Readonly<Record<'gelu' | 'relu' | 'silu' | 'tanh', (x: Value) => Value>> = {
  gelu,
  relu: (x) => maximum(x, 0),
  silu,
  tanh,
};
