import fc from 'fast-check';
import { afterAll, expect, it } from 'vitest';
import { tensor } from '../graph/tensor.js';
import { newGraph } from '../ops/registry.js';
import { Runtime } from '../runtime/runtime.js';
import { relativeShift } from './attention.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

it('gives each row what it has for the offsets of the columns from it', async () => {
  const graph = newGraph();
  const shape = ['A', 'B', 'T', '2*T'];
  graph.output('y', relativeShift(graph.input('x', 'float32', shape)));
  const program = await runtime.compile(graph);
  const sizes = fc.record({
    a: fc.integer({ min: 1, max: 2 }),
    b: fc.integer({ min: 1, max: 3 }),
    t: fc.integer({ min: 1, max: 7 }),
  });
  await fc.assert(
    fc.asyncProperty(sizes, async ({ a, b, t }) => {
      const x = Float32Array.from({ length: a * b * t * 2 * t }, (_, position) => position);
      const { y } = await program.run({ x: tensor('float32', [a, b, t, 2 * t], x) });
      expect(y!.shape).toEqual([a, b, t, t]);
      const expected = Array.from({ length: a * b * t * t }, (_, position) => {
        const [row, column] = [Math.floor(position / t), position % t];
        return x[row * 2 * t + t - 1 + column - (row % t)];
      });
      expect([...(y!.data as Float32Array)]).toEqual(expected);
    }),
    { numRuns: 20 },
  );
});
