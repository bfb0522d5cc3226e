import { afterAll, describe, expect, it } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import { toNdArray } from '../../tests/support/ops/op-case.js';
import { int8Scales, quantizeRow } from '../checkpoints/quantized/int8.js';
import { backward } from '../autodiff/backward.js';
import type { Value } from '../graph/graph.js';
import { tensor, wrap, type Tensor } from '../graph/tensor.js';
import { scoresOfLogits } from '../nn/losses.js';
import { stream } from '../random.js';
import { Runtime } from '../runtime/runtime.js';
import { gatherRows, linearLogProbs, matmul, mul, reduceSum, type TokenScores } from './build.js';
import { newGraph } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const [WIDTH, VOCABULARY] = [32, 700];

function normal(shape: readonly [number, number], seed: string, size = 1): Tensor<'float32'> {
  const random = stream(7, seed);
  return wrap(
    'float32',
    shape,
    Float32Array.from({ length: shape[0] * shape[1] }, () => size * random.normal()),
  );
}

const head = normal([VOCABULARY, WIDTH], 'head', 0.5);

type Scores = (given: { hidden: Value; ids: Value; rows: Value }, matrix: Value) => TokenScores;

const whole: Scores = ({ hidden, ids }, matrix) => scoresOfLogits(matmul(hidden, matrix, { transB: true }), ids);
const inChunks =
  (chunk: number): Scores =>
  (given, matrix) =>
    linearLogProbs(given, matrix, chunk);

async function run(
  scoresOf: Scores,
  rows: number,
  extra: Record<string, Tensor> = {},
): Promise<Record<string, Tensor>> {
  const graph = newGraph();
  const hidden = graph.input('hidden', 'float32', ['N', WIDTH]);
  const ids = graph.input('ids', 'int32', ['N']);
  const matrix = graph.input('head', 'float32', [VOCABULARY, WIDTH]);
  const scores = scoresOf({ hidden, ids, rows: gatherRows(matrix, ids) }, matrix);
  for (const [name, value] of Object.entries(scores)) graph.output(name, value as Value);
  const weights = graph.input('weights', 'float32', ['N']);
  graph.output('gradient', backward(reduceSum(mul(scores.logProbs, weights)), [hidden])[0]!);
  const program = await runtime.compile(graph);
  const random = stream(3, 'ids');
  const result = await program.run({
    hidden: normal([rows, WIDTH], 'hidden'),
    ids: tensor(
      'int32',
      [rows],
      Array.from({ length: rows }, () => random.integer(VOCABULARY)),
    ),
    head,
    weights: tensor(
      'float32',
      [rows],
      Array.from({ length: rows }, () => random.normal()),
    ),
    ...extra,
  });
  await program.dispose();
  return result;
}

describe('linearLogProbs', () => {
  it.each([1, 2, 5, 13, 64])('gives in chunks of %i rows what whole logits give', async (chunk) => {
    for (const rows of [1, 13]) {
      const [expected, actual] = [await run(whole, rows), await run(inChunks(chunk), rows)];
      for (const [name, value] of Object.entries(expected)) {
        expectClose(toNdArray(actual[name]!), toNdArray(value), name === 'correct' ? 0 : 3e-6, name);
      }
    }
  });

  it('gives the entropy also where no gradient is computed', async () => {
    const graph = newGraph();
    const hidden = graph.input('hidden', 'float32', ['N', WIDTH]);
    const ids = graph.input('ids', 'int32', ['N']);
    const matrix = graph.input('head', 'float32', [VOCABULARY, WIDTH]);
    graph.output('entropies', linearLogProbs({ hidden, ids, rows: gatherRows(matrix, ids) }, matrix, 4).entropies);
    const program = await runtime.compile(graph);
    const result = await program.run({
      hidden: normal([13, WIDTH], 'hidden'),
      ids: tensor('int32', [13], Array(13).fill(0)),
      head,
    });
    await program.dispose();
    expectClose(toNdArray(result['entropies']!), toNdArray((await run(whole, 13))['entropies']!), 3e-6, 'entropies');
  });

  it('keeps in 8 bits the tail of a distribution, which rounding to the nearest would lose', async () => {
    const { inputScale, outputScale, inputOutliers, outputOutliers } = await int8Scales(
      VOCABULARY,
      WIDTH,
      (start, count) => Promise.resolve(head.data.slice(start * WIDTH, (start + count) * WIDTH)),
    );
    const lying = new Int8Array(VOCABULARY * WIDTH);
    for (let v = 0; v < VOCABULARY; v++) {
      const range = [v * WIDTH, (v + 1) * WIDTH] as const;
      quantizeRow(head.data.subarray(...range), inputScale, outputScale[v]!, lying.subarray(...range));
    }
    const turned = lying.map((_, at) => lying[(at % VOCABULARY) * WIDTH + Math.floor(at / VOCABULARY)]!);
    const parts = {
      weight: wrap('int8', [WIDTH, VOCABULARY], turned),
      transposed: wrap('int8', [VOCABULARY, WIDTH], lying),
      inputScale: wrap('float32', [WIDTH], inputScale),
      outputScale: wrap('float32', [VOCABULARY], outputScale),
      inputOutliers: wrap('int32', [inputOutliers.length], inputOutliers),
      outputOutliers: wrap('int32', [outputOutliers.length], outputOutliers),
    };
    const rounded: Scores = (given) => {
      const { graph } = given.hidden;
      const part = (name: keyof typeof parts) => graph.input(name, parts[name].dtype, parts[name].shape);
      const matrix = {
        weight: part('weight'),
        transposed: part('transposed'),
        inputScale: part('inputScale'),
        outputScale: part('outputScale'),
        inputOutliers: part('inputOutliers'),
        outputOutliers: part('outputOutliers'),
      };
      return linearLogProbs(given, matrix, 8);
    };
    const [expected, actual] = [await run(whole, 40), await run(rounded, 40, parts)];
    const error = (name: string): number => {
      const [a, b] = [actual[name]!, expected[name]!].map(({ data }) => data as Float32Array) as [
        Float32Array,
        Float32Array,
      ];
      const square = (values: Float32Array): number => values.reduce((sum, value) => sum + value * value, 0);
      return Math.sqrt(square(a.map((value, i) => value - b[i]!)) / square(b));
    };
    // Of a distribution over 700 tokens about half lies below half a step of 1/255 of its largest.
    expect(error('gradient')).toBeLessThan(0.02);
    expect(error('logProbs')).toBeLessThan(0.01);
    expect(error('entropies')).toBeLessThan(0.01);
  });

  it('says that its head is frozen when a gradient of it is asked for', () => {
    const graph = newGraph();
    const matrix = graph.parameter('head', 'float32', [VOCABULARY, WIDTH]);
    const given = {
      hidden: graph.input('hidden', 'float32', ['N', WIDTH]),
      ids: graph.input('ids', 'int32', ['N']),
      rows: graph.input('rows', 'float32', ['N', WIDTH]),
    };
    expect(() => backward(reduceSum(linearLogProbs(given, matrix, 4).logProbs), [matrix])).toThrow(/frozen/);
  });
});
