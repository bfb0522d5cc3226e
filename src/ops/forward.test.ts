import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import type { NdArray } from '../../tests/support/ndarray.js';
import { runEmitted } from '../../tests/support/onnx-session.js';
import { opCases } from '../../tests/support/ops/cases.js';
import {
  feedsOf,
  fill,
  inputsOf,
  sizes,
  titleOf,
  toNdArray,
  type OpInstance,
} from '../../tests/support/ops/op-case.js';
import { evaluateDim } from '../graph/dim.js';
import type { Graph } from '../graph/graph.js';
import { Runtime } from '../runtime/runtime.js';
import { newGraph, ops } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

/** Ops that have tests of their own: graph inputs, and those with a seed, a cache or a rounding. */
const elsewhere = ['input', 'parameter', 'int8Matmul', 'roundedMatmul', 'int4Matmul', 'bytesMatmul', 'dropoutMask'];

function forwardGraph(instance: OpInstance, float: 'float32' | 'float64'): Graph {
  const graph = newGraph();
  graph.output('y', instance.build(inputsOf(instance, graph, float), graph, float));
  return graph;
}

describe('the value of an op', () => {
  it('is checked for every op of the registry', () => {
    expect([...new Set([...opCases.map(({ op }) => op), ...elsewhere])].sort()).toEqual(Object.keys(ops).sort());
  });

  describe.each(opCases.map((opCase) => ({ ...opCase, title: titleOf(opCase) })))(
    '$title',
    ({ instances, float64 }) => {
      const precisions = float64 ? (['float32', 'float64'] as const) : (['float32'] as const);

      it.each(precisions)('equals the plain loop in %s, on either emission and at any size', async (float) => {
        const tolerance = float === 'float32' ? 4e-6 : 1e-12;
        await fc.assert(
          fc.asyncProperty(instances, sizes, sizes, fc.nat(), async (instance, first, second, seed) => {
            const graph = forwardGraph(instance, float);
            const program = await runtime.compile(graph);
            for (const bindings of [first, second]) {
              const arrays = fill(instance, bindings, seed);
              const feeds = feedsOf(instance, arrays, float);
              const expected = instance.reference(arrays, (dim) => evaluateDim(dim, bindings));
              const check = (y: NdArray, emission: string): void => {
                expectClose(y, expected, tolerance, `the value on ${emission}`);
              };
              check(toNdArray((await program.run(feeds))['y']!), 'the runtime');
              check(toNdArray((await runEmitted(graph, 'webgpu', feeds))['y']!), 'the emission for another device');
            }
            await program.dispose();
          }),
          { numRuns: 8 },
        );
      });
    },
  );
});
