import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import { finiteDifferences, gradientName, lossGraph, scalarOf } from '../../tests/support/gradcheck.js';
import { sum, type NdArray } from '../../tests/support/ndarray.js';
import { runEmitted } from '../../tests/support/onnx-session.js';
import { opCases } from '../../tests/support/ops/cases.js';
import {
  feedsOf,
  fill,
  sizes,
  titleOf,
  toNdArray,
  toTensor,
  type OpInstance,
} from '../../tests/support/ops/op-case.js';
import { stream } from '../random.js';
import { evaluateDim } from '../graph/dim.js';
import type { Tensor } from '../graph/tensor.js';
import { Runtime } from '../runtime/runtime.js';
import { ops } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const checked = opCases
  .filter((opCase) => opCase.differentiable)
  .map((opCase) => ({ ...opCase, title: titleOf(opCase) }));

/** Ops whose gradient no differences show, because they round: they have tests of their own. */
const elsewhere = ['int8Matmul', 'roundedMatmul'];

function randomWeights(shape: readonly number[], seed: number): NdArray {
  const random = stream(seed, 'weights');
  const data = new Float64Array(shape.reduce((product, size) => product * size, 1));
  return { shape, data: data.map(() => Math.fround(2 * random.uniform() - 1)) };
}

function expectGradients(
  gradients: Readonly<Record<string, Tensor>>,
  expected: ReadonlyMap<number, NdArray>,
  tolerance: number,
): void {
  for (const [operand, slopes] of expected) {
    const name = gradientName(operand);
    expectClose(toNdArray(gradients[name]!), slopes, tolerance, name);
  }
}

/** Numbers for one feed, and the weights of the loss, whose shape is that of the value. */
function draw(instance: OpInstance, bindings: ReadonlyMap<string, number>, seed: number) {
  const arrays = fill(instance, bindings, seed);
  const evaluate = (given: readonly NdArray[]): NdArray =>
    instance.reference(given, (dim) => evaluateDim(dim, bindings));
  const weights = randomWeights(evaluate(arrays).shape, seed);
  const lossOfLoops = (given: readonly NdArray[]): number =>
    sum(evaluate(given).data.map((value, position) => value * weights.data[position]!));
  return { arrays, weights, lossOfLoops };
}

describe('the gradient of an op', () => {
  it('is checked for every op that has one', () => {
    const withGradient = Object.entries(ops).flatMap(([op, { vjp }]) => (typeof vjp === 'function' ? [op] : []));
    expect([...new Set(checked.map(({ op }) => op)), ...elsewhere].sort()).toEqual(withGradient.sort());
  });

  it.each(checked.filter(({ float64 }) => float64))(
    'equals central differences of its own value in float64: $title',
    async ({ instances }) => {
      await fc.assert(
        fc.asyncProperty(instances, sizes, sizes, fc.nat(), async (instance, first, second, seed) => {
          const forward = await runtime.compile(lossGraph(instance, 'float64', false));
          const both = await runtime.compile(lossGraph(instance, 'float64', true));
          for (const bindings of [first, second]) {
            const { arrays, weights } = draw(instance, bindings, seed);
            const feeds = (given: readonly NdArray[]): Record<string, Tensor> => ({
              ...feedsOf(instance, given, 'float64'),
              weights: toTensor('float64', weights),
            });
            const slopes = await finiteDifferences(instance, arrays, async (given) =>
              scalarOf((await forward.run(feeds(given)))['loss']),
            );
            expectGradients(await both.run(feeds(arrays)), slopes, 1e-8);
          }
          await Promise.all([forward.dispose(), both.dispose()]);
        }),
        { numRuns: 8 },
      );
    },
  );

  // float32 takes the fused kernels, whose statistics the gradients read; the other emission takes none of them.
  it.each(checked)(
    'equals central differences of the plain loop in float32, on either emission: $title',
    async ({ instances }) => {
      await fc.assert(
        fc.asyncProperty(instances, sizes, fc.nat(), async (instance, bindings, seed) => {
          const { arrays, weights, lossOfLoops } = draw(instance, bindings, seed);
          const slopes = await finiteDifferences(instance, arrays, lossOfLoops);
          const graph = lossGraph(instance, 'float32', true);
          const feeds = { ...feedsOf(instance, arrays, 'float32'), weights: toTensor('float32', weights) };
          const program = await runtime.compile(graph);
          expectGradients(await program.run(feeds), slopes, 1e-5);
          expectGradients(await runEmitted(graph, 'webgpu', feeds), slopes, 1e-5);
          await program.dispose();
        }),
        { numRuns: 8 },
      );
    },
  );
});
