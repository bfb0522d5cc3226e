import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import { toNdArray } from '../../tests/support/ops/op-case.js';
import { roundRow } from '../../tests/support/round-rows.js';
import { backward } from '../autodiff/backward.js';
import type { Graph, Value } from '../graph/graph.js';
import { tensor, wrap, type Tensor } from '../graph/tensor.js';
import { emit } from '../onnx/emit.js';
import { stream } from '../random.js';
import { Runtime, type Program } from '../runtime/runtime.js';
import { int8Matmul, mul, reduceSum } from './build.js';
import { newGraph } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

interface Matrix {
  readonly inner: number;
  readonly outer: number;
  /** (K, N), row-major. */
  readonly weight: Int8Array;
  readonly inputScale: Float32Array;
  readonly outputScale: Float32Array;
  /** Of K, and of N. */
  readonly inputOutliers: Int32Array;
  readonly outputOutliers: Int32Array;
}

function drawMatrix(inner: number, outer: number, seed: number): Matrix {
  const random = stream(seed, 'matrix');
  const scales = (size: number) => Float32Array.from({ length: size }, () => 0.5 + random.uniform());
  const outliers = (size: number) => Int32Array.from(Array(size).keys()).filter(() => random.uniform() < 0.1);
  const inputOutliers = outliers(inner);
  const inputScale = new Float32Array(inner).fill(1);
  for (const [i, scale] of scales(inputOutliers.length).entries()) inputScale[inputOutliers[i]!] = scale;
  return {
    inner,
    outer,
    weight: Int8Array.from({ length: inner * outer }, () => random.integer(255) - 127),
    inputScale,
    outputScale: scales(outer),
    inputOutliers,
    outputOutliers: outliers(outer),
  };
}

function transposed({ inner, outer, weight }: Matrix): Int8Array {
  return Int8Array.from({ length: inner * outer }, (_, at) => weight[(at % inner) * outer + Math.floor(at / inner)]!);
}

const feedsOf = (matrix: Matrix): Record<string, Tensor> => ({
  weight: wrap('int8', [matrix.inner, matrix.outer], matrix.weight),
  transposed: wrap('int8', [matrix.outer, matrix.inner], transposed(matrix)),
  inputScale: wrap('float32', [matrix.inner], matrix.inputScale),
  outputScale: wrap('float32', [matrix.outer], matrix.outputScale),
  inputOutliers: wrap('int32', [matrix.inputOutliers.length], matrix.inputOutliers),
  outputOutliers: wrap('int32', [matrix.outputOutliers.length], matrix.outputOutliers),
});

/** What the op says that it computes; scales in float32, so that every number is rounded to the same side. */
function plain(rows: readonly (readonly number[])[], matrix: Matrix) {
  const { outer, weight, inputScale, outputScale } = matrix;
  const f = Math.fround;
  const isOutlier = new Set(matrix.inputOutliers);
  return rows.flatMap((row) => {
    const scaled = row.map((value, k) => f(f(value) * inputScale[k]!));
    const values = roundRow(scaled, (k) => !isOutlier.has(k));
    return Array.from({ length: outer }, (_, n) =>
      values.reduce((sum, value, k) => sum + value * weight[k * outer + n]! * outputScale[n]!, 0),
    );
  });
}

function build(leading: (string | number)[], { inner, outer }: Matrix): { graph: Graph; x: Value; y: Value } {
  const graph = newGraph();
  const x = graph.input('x', 'float32', [...leading, inner]);
  const y = int8Matmul(x, {
    weight: graph.input('weight', 'int8', [inner, outer]),
    transposed: graph.input('transposed', 'int8', [outer, inner]),
    inputScale: graph.input('inputScale', 'float32', [inner]),
    outputScale: graph.input('outputScale', 'float32', [outer]),
    inputOutliers: graph.input('inputOutliers', 'int32', ['I']),
    outputOutliers: graph.input('outputOutliers', 'int32', ['O']),
  });
  return { graph, x, y };
}

const acceptedBy = (program: Program, feeds: Record<string, Tensor>): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(feeds).filter(([name]) => program.inputs.has(name)));

const sizes = fc.record({ inner: fc.integer({ min: 1, max: 40 }), outer: fc.integer({ min: 1, max: 24 }) });
const seeds = fc.nat(1 << 20);

const normalRows = (count: number, width: number, seed: number): number[][] => {
  const random = stream(seed, 'rows');
  return Array.from({ length: count }, () => Array.from({ length: width }, () => Math.fround(random.normal())));
};

describe('int8Matmul', () => {
  it('rounds each row with its own scale and sums in integers, whatever the leading axes', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, seeds, fc.integer({ min: 1, max: 5 }), async ({ inner, outer }, seed, count) => {
        const matrix = drawMatrix(inner, outer, seed);
        const rows = normalRows(2 * count, inner, seed);
        if (seed % 3 === 0) rows[0]!.fill(0);
        const { graph, y } = build([2, 'T'], matrix);
        graph.output('y', y);
        const program = await runtime.compile(graph);
        const feeds = { x: tensor('float32', [2, count, inner], rows.flat()), ...feedsOf(matrix) };
        const result = (await program.run(acceptedBy(program, feeds)))['y']!;
        await program.dispose();
        expect(result.shape).toEqual([2, count, outer]);
        const expected = { shape: result.shape, data: Float64Array.from(plain(rows, matrix)) };
        expectClose(toNdArray(result), expected, 1e-5, 'y');
      }),
      { numRuns: 12 },
    );
  });

  it('gives a row the same numbers in any batch, to the last bit', async () => {
    // Sums of integers are exact; of outliers, in float32, the order may be another.
    const matrix = { ...drawMatrix(64, 32, 5), inputOutliers: Int32Array.of() };
    const rows = normalRows(9, 64, 6).map((row, i) => row.map((value) => Math.fround(value * 10 ** (i - 4))));
    const { graph, y } = build(['N'], matrix);
    graph.output('y', y);
    const program = await runtime.compile(graph);
    const run = async (chosen: number[][]) =>
      (
        await program.run(
          acceptedBy(program, { x: tensor('float32', [chosen.length, 64], chosen.flat()), ...feedsOf(matrix) }),
        )
      )['y']!.data;
    const together = (await run(rows)) as Float32Array;
    for (const [i, row] of rows.entries()) {
      expect(await run([row])).toEqual(together.slice(i * 32, (i + 1) * 32));
    }
    await program.dispose();
  });

  it('multiplies outliers apart, so that the rest of their row keeps its precision', async () => {
    const matrix = { ...drawMatrix(256, 8, 9), inputScale: new Float32Array(256).fill(1) };
    const rows = normalRows(6, 256, 10);
    for (const row of rows) [row[17], row[200]] = [50, -70];
    const { graph, y } = build(['N'], matrix);
    graph.output('y', y);
    const program = await runtime.compile(graph);
    const exact = rows.flatMap((row) =>
      Array.from({ length: 8 }, (_, n) =>
        row.reduce((sum, value, k) => sum + value * matrix.weight[k * 8 + n]! * matrix.outputScale[n]!, 0),
      ),
    );
    const rms = (values: readonly number[]): number => Math.hypot(...values) / Math.sqrt(values.length);
    const errorWith = async (inputOutliers: Int32Array): Promise<number> => {
      const feeds = { x: tensor('float32', [6, 256], rows.flat()), ...feedsOf({ ...matrix, inputOutliers }) };
      const { data } = (await program.run(acceptedBy(program, feeds)))['y']!;
      return rms(exact.map((value, i) => (data[i] as number) - value)) / rms(exact);
    };
    const [apart, together] = [await errorWith(Int32Array.of(17, 200)), await errorWith(Int32Array.of())];
    await program.dispose();
    expect(apart).toBeLessThan(0.003);
    expect(together).toBeGreaterThan(10 * apart);
  });

  it('leaves outliers out of a model whose file has none', () => {
    const parameters = (outliers: number): Uint8Array => {
      const matrix = drawMatrix(4, 3, 1);
      const graph = newGraph();
      const part = (name: string, dtype: 'int8' | 'float32' | 'int32', shape: (number | string)[]) =>
        graph.parameter(name, dtype, shape);
      const y = int8Matmul(graph.input('x', 'float32', ['N', 4]), {
        weight: part('weight', 'int8', [4, 3]),
        transposed: part('transposed', 'int8', [3, 4]),
        inputScale: part('inputScale', 'float32', [4]),
        outputScale: part('outputScale', 'float32', [3]),
        inputOutliers: part('inputOutliers', 'int32', ['I']),
        outputOutliers: part('outputOutliers', 'int32', ['O']),
      });
      graph.output('y', y);
      const stored = { ...feedsOf(matrix), inputOutliers: wrap('int32', [outliers], new Int32Array(outliers)) };
      const bound = new Map(
        Object.entries(stored).map(([name, { dtype, shape, data }]) => [
          name,
          { dtype: dtype as 'int8', shape, data: new Uint8Array(data.buffer as ArrayBuffer) },
        ]),
      );
      return emit(graph, { device: 'cpu', bound }).bytes;
    };
    const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
    expect(text(parameters(1))).toContain('Gemm');
    expect(text(parameters(0))).not.toContain('Gemm');
  });

  it('has as its gradient the product with the transposed matrix, rounded the same way', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, seeds, async ({ inner, outer }, seed) => {
        const matrix = drawMatrix(inner, outer, seed);
        const { graph, x, y } = build(['N'], matrix);
        const weights = graph.input('weights', 'float32', y.shape);
        graph.output('gradient', backward(reduceSum(mul(y, weights)), [x])[0]!);
        const program = await runtime.compile(graph);
        const grads = normalRows(3, outer, seed);
        const feeds = {
          x: tensor('float32', [3, inner], normalRows(3, inner, seed + 1).flat()),
          weights: tensor('float32', [3, outer], grads.flat()),
          ...feedsOf(matrix),
        };
        const result = (await program.run(acceptedBy(program, feeds)))['gradient']!;
        await program.dispose();
        const adjoint = {
          inner: outer,
          outer: inner,
          weight: transposed(matrix),
          inputScale: matrix.outputScale,
          outputScale: matrix.inputScale,
          inputOutliers: matrix.outputOutliers,
          outputOutliers: matrix.inputOutliers,
        };
        const expected = { shape: result.shape, data: Float64Array.from(plain(grads, adjoint)) };
        expectClose(toNdArray(result), expected, 1e-5, 'gradient');
      }),
      { numRuns: 12 },
    );
  });

  it('says that its matrix is frozen when a gradient of it is asked for', () => {
    const { graph, y } = build(['N'], drawMatrix(4, 3, 1));
    const scale = graph.nodes.find(({ attributes }) => attributes['name'] === 'outputScale')!.outputs[0]!;
    expect(() => backward(reduceSum(y), [scale])).toThrow(/frozen/);
  });

  it('is refused with a matrix that does not fit', () => {
    const other = newGraph();
    const vector = (name: string, size: number) => other.input(name, 'float32', [size]);
    expect(() =>
      int8Matmul(other.input('x', 'float32', ['N', 4]), {
        weight: other.input('weight', 'int8', [4, 3]),
        transposed: other.input('transposed', 'int8', [4, 3]),
        inputScale: vector('inputScale', 4),
        outputScale: vector('outputScale', 3),
        inputOutliers: other.input('inputOutliers', 'int32', [0]),
        outputOutliers: other.input('outputOutliers', 'int32', [0]),
      }),
    ).toThrow(/transposed matrix must be \(3, 4\)/);
  });
});
