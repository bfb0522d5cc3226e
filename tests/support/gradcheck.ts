import { backward } from '../../src/autodiff/backward.js';
import type { Graph } from '../../src/graph/graph.js';
import type { Tensor } from '../../src/graph/tensor.js';
import { mul, reduceSum } from '../../src/ops/build.js';
import { newGraph } from '../../src/ops/registry.js';
import type { NdArray } from './ndarray.js';
import { inputName, inputsOf, type OpInstance } from './ops/op-case.js';

type Float = 'float32' | 'float64';

/** A power of two, so that x ± step is exact for the x that the samplers draw near 1. */
const step = 2 ** -17;

const floatOperands = (instance: OpInstance): number[] =>
  instance.operands.flatMap(({ dtype }, operand) => (dtype === 'float' ? [operand] : []));

/**
 * The graph of loss = Σ y ⊙ weights for an instance's value y: any weights make the vector of a vector-Jacobian
 * product. Outputs `loss`, and where asked for, the gradient of every float operand under the operand's name.
 */
export function lossGraph(instance: OpInstance, float: Float, withGradients: boolean): Graph {
  const graph = newGraph();
  const operands = inputsOf(instance, graph, float);
  const y = instance.build(operands, graph, float);
  const loss = graph.output('loss', reduceSum(mul(y, graph.input('weights', float, y.shape))));
  if (!withGradients) return graph;
  const asked = floatOperands(instance);
  const gradients = backward(
    loss,
    asked.map((operand) => operands[operand]!),
  );
  for (const [position, operand] of asked.entries()) graph.output(gradientName(operand), gradients[position]!);
  return graph;
}

export const gradientName = (operand: number): string => `gradient of ${inputName(operand)}`;

/** Central differences of a loss with respect to each element of each float operand. */
export async function finiteDifferences(
  instance: OpInstance,
  arrays: readonly NdArray[],
  lossAt: (arrays: readonly NdArray[]) => number | Promise<number>,
): Promise<Map<number, NdArray>> {
  const differences = new Map<number, NdArray>();
  for (const operand of floatOperands(instance)) {
    const { shape, data } = arrays[operand]!;
    const lossWith = async (position: number, value: number): Promise<number> =>
      lossAt(arrays.with(operand, { shape, data: data.with(position, value) }));
    const slopes = new Float64Array(data.length);
    for (const [position, value] of data.entries()) {
      const above = await lossWith(position, value + step);
      slopes[position] = (above - (await lossWith(position, value - step))) / (2 * step);
    }
    differences.set(operand, { shape, data: slopes });
  }
  return differences;
}

/** The one element of a 0-d tensor. */
export function scalarOf(tensor: Tensor | undefined): number {
  if (tensor?.data.length !== 1) throw new RangeError('the tensor is not a scalar');
  return Number(tensor.data[0]);
}
