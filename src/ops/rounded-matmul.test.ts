import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import { toNdArray } from '../../tests/support/ops/op-case.js';
import { roundRow } from '../../tests/support/round-rows.js';
import { backward } from '../autodiff/backward.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { stream } from '../random.js';
import { Runtime } from '../runtime/runtime.js';
import { mul, reduceSum, roundedMatmul } from './build.js';
import { newGraph } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

type Matrix = readonly (readonly number[])[];

function normalRows(count: number, width: number, seed: number, name: string): number[][] {
  const random = stream(seed, name);
  return Array.from({ length: count }, () => Array.from({ length: width }, () => Math.fround(random.normal())));
}

const transpose = (matrix: Matrix): number[][] => matrix[0]!.map((_, k) => matrix.map((row) => row[k]!));

/** A · Bᵀ. */
const product = (a: Matrix, b: Matrix): number[][] =>
  a.map((row) => b.map((other) => row.reduce((sum, value, k) => sum + value * other[k]!, 0)));

const roundRows = (matrix: Matrix): number[][] => matrix.map((row) => roundRow(row));

/** The scales of a matrix's rows, in float32. */
const scalesOf = (matrix: Matrix): number[] =>
  matrix.map((row) => Math.fround(Math.max(...row.map(Math.abs)) * Math.fround(1 / 127)));

/** y = x · Wᵀ as the op says that it computes it, and what comes back for the weights of a loss Σ weights · y. */
function plain(x: Matrix, weight: Matrix, weights: Matrix) {
  const codes = roundRows(weight);
  const scales = scalesOf(weight);
  // The scales of W's rows go to the gradient before it is rounded; the codes are what is left.
  const scaled = weights.map((row) => row.map((value, n) => Math.fround(value * scales[n]!)));
  const integers = codes.map((row, n) => row.map((value) => value / scales[n]!));
  return {
    y: product(roundRows(x), codes),
    dx: product(roundRows(scaled), transpose(integers)),
    dw: product(transpose(weights), transpose(x)),
  };
}

const asTensor = (rows: Matrix, shape: readonly number[] = [rows.length, rows[0]!.length]): Tensor =>
  tensor('float32', shape, rows.flat());

const expected = (rows: Matrix, shape: readonly number[]) => ({ shape, data: Float64Array.from(rows.flat()) });

const sizes = fc.record({ inner: fc.integer({ min: 1, max: 40 }), outer: fc.integer({ min: 1, max: 24 }) });

describe('roundedMatmul', () => {
  it('rounds rows and the matrix for the product and for the gradient of the rows, not for that of the matrix', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, fc.nat(1 << 20), fc.integer({ min: 1, max: 4 }), async (size, seed, length) => {
        const { inner, outer } = size;
        const graph = newGraph();
        const x = graph.input('x', 'float32', [2, 'T', inner]);
        const weight = graph.input('weight', 'float32', [outer, inner]);
        const y = roundedMatmul(x, weight);
        const weights = graph.input('weights', 'float32', y.shape);
        const [dx, dw] = backward(reduceSum(mul(y, weights)), [x, weight]);
        for (const [name, value] of Object.entries({ y, dx: dx!, dw: dw! })) graph.output(name, value);
        const program = await runtime.compile(graph);
        const given = normalRows(2 * length, inner, seed, 'x');
        const matrix = normalRows(outer, inner, seed, 'weight').map((row, n) =>
          row.map((v) => Math.fround(v * 3 ** n)),
        );
        const slopes = normalRows(2 * length, outer, seed, 'weights');
        if (seed % 3 === 0) given[0]!.fill(0);
        const results = await program.run({
          x: asTensor(given, [2, length, inner]),
          weight: asTensor(matrix),
          weights: asTensor(slopes, [2, length, outer]),
        });
        await program.dispose();
        const wanted = plain(given, matrix, slopes);
        expectClose(toNdArray(results['y']!), expected(wanted.y, [2, length, outer]), 1e-5, 'y');
        expectClose(toNdArray(results['dx']!), expected(wanted.dx, [2, length, inner]), 1e-5, 'dx');
        expectClose(toNdArray(results['dw']!), expected(wanted.dw, [outer, inner]), 1e-5, 'dw');
      }),
      { numRuns: 12 },
    );
  });

  it('has as the gradients of its adjoint the product itself, and that of the matrix in float32', async () => {
    const graph = newGraph();
    const g = graph.input('g', 'float32', ['N', 5]);
    const weight = graph.input('weight', 'float32', [5, 7]);
    const y = roundedMatmul(g, weight, true);
    const weights = graph.input('weights', 'float32', y.shape);
    const [dg, dw] = backward(reduceSum(mul(y, weights)), [g, weight]);
    graph.output('dg', dg!);
    graph.output('dw', dw!);
    const program = await runtime.compile(graph);
    const [rows, matrix, slopes] = [normalRows(3, 5, 1, 'g'), normalRows(5, 7, 1, 'w'), normalRows(3, 7, 1, 's')];
    const results = await program.run({ g: asTensor(rows), weight: asTensor(matrix), weights: asTensor(slopes) });
    await program.dispose();
    expectClose(toNdArray(results['dg']!), expected(product(roundRows(slopes), roundRows(matrix)), [3, 5]), 1e-5, 'dg');
    expectClose(toNdArray(results['dw']!), expected(product(transpose(rows), transpose(slopes)), [5, 7]), 1e-5, 'dw');
  });

  it('gives a row the same numbers in any batch, to the last bit', async () => {
    const graph = newGraph();
    graph.output('y', roundedMatmul(graph.input('x', 'float32', ['N', 64]), graph.input('w', 'float32', [32, 64])));
    const program = await runtime.compile(graph);
    const w = asTensor(normalRows(32, 64, 5, 'weight'));
    const rows = normalRows(9, 64, 6, 'rows').map((row, i) => row.map((value) => Math.fround(value * 10 ** (i - 4))));
    const run = async (chosen: Matrix): Promise<Float32Array> =>
      (await program.run({ x: asTensor(chosen), w }))['y']!.data as Float32Array;
    const together = await run(rows);
    for (const [i, row] of rows.entries()) expect(await run([row])).toEqual(together.slice(i * 32, (i + 1) * 32));
    await program.dispose();
  });

  it('is refused with a matrix that does not fit', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['N', 4]);
    expect(() => roundedMatmul(x, graph.input('w', 'float32', [3, 5]))).toThrow(/a row of the left side must be \(5\)/);
    expect(() => roundedMatmul(x, graph.input('v', 'float32', [4, 3]))).toThrow(/must be \(3\)/);
    expect(() => roundedMatmul(x, graph.input('u', 'float64', [3, 4]))).toThrow(/float64/);
  });
});
