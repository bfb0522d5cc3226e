import { afterAll, expect, it } from 'vitest';
import { TINY } from '../../tests/support/tiny-model.js';
import { backward } from '../autodiff/backward.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { ModelContext } from '../nn/context.js';
import { gatherRows, mul, reduceSum } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { stream } from '../random.js';
import { Runtime } from '../runtime/runtime.js';
import { packedDropoutFeeds } from '../training/dropout.js';
import { initialWeights } from '../training/initial-weights.js';
import { causalHidden } from './causal.js';
import { packedFeeds, packedTokens } from './packed-tokens.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const sequences = [
  [5, 6, 7, 8, 9],
  [11, 12],
  [13, 14, 15],
];
const chosen = [1, 3, 4, 6, 8];
const lora = { r: 2, alpha: 4, dropout: 0.3, targetModules: ['q_proj', 'o_proj', 'gate_proj', 'down_proj'] };

/** The states of the chosen tokens and the gradients of their sum in one direction, computed for these tokens alone or for all. */
async function computed(alone: boolean, recompute: boolean): Promise<Record<string, Tensor>> {
  const context = new ModelContext(newGraph(), { training: true, lora, recompute });
  const { graph } = context;
  const tokens = packedTokens(context);
  const rows = graph.input('rows', 'int32', ['N']);
  const { hidden } = causalHidden(context, TINY, tokens, alone ? rows : undefined);
  const states = alone ? hidden : gatherRows(hidden, rows);
  graph.output('states', states);
  const direction = graph.input('direction', 'float32', ['N', TINY.hiddenSize]);
  const gradients = backward(reduceSum(mul(states, direction)), [...context.loraWeights.values()]);
  for (const [i, name] of [...context.loraWeights.keys()].entries()) graph.output(`grad of ${name}`, gradients[i]!);
  const program = await runtime.compile(graph);
  const [size, random] = [[chosen.length, TINY.hiddenSize], stream(3)];
  const items = sequences.map((inputIds, row) => ({ row, sequences: [{ inputIds }] }));
  const feeds: Record<string, Tensor> = {
    ...packedFeeds(sequences),
    ...packedDropoutFeeds(7, 3, items),
    ...Object.fromEntries(initialWeights(context.weights, TINY.initializerRange, 1)),
    ...Object.fromEntries(initialWeights(context.loraWeights, TINY.initializerRange, 2)),
    rows: tensor('int32', [chosen.length], chosen),
    direction: tensor(
      'float32',
      size,
      Array.from({ length: size[0]! * size[1]! }, () => random.normal()),
    ),
  };
  return program.run(Object.fromEntries([...program.inputs.keys()].map((name) => [name, feeds[name]!])));
}

it.each([false, true])(
  'computes for chosen tokens alone what it computes for all, dropout and gradients included (recomputed: %s)',
  async (recompute) => {
    const [all, alone] = [await computed(false, recompute), await computed(true, recompute)];
    for (const [name, { data }] of Object.entries(all)) {
      const largest = Math.max(...(data as Float32Array).map(Math.abs));
      const apart = (alone[name]!.data as Float32Array).map((value, i) => Math.abs(value - Number(data[i])));
      expect(largest).toBeGreaterThan(1e-3);
      expect(Math.max(...apart), name).toBeLessThan(1e-5 * largest);
    }
  },
);
