import fc from 'fast-check';
import { quantizeFourBit, dequantizeFourBit, scalesOf } from '../../../src/checkpoints/quantized/four-bit.js';
import * as build from '../../../src/ops/build.js';
import { stream } from '../../../src/random.js';
import { ndarray } from '../ndarray.js';
import { differentiable, float, shape, type OpCase, type OpInstance } from './op-case.js';
import * as reference from './reference.js';

/** Products with matrices that are frozen: constants, as nothing differentiates them. */
export const frozenCases: readonly OpCase[] = [
  {
    ...differentiable(
      'nf4Matmul',
      fc
        .tuple(
          shape(1, 2),
          fc.constantFrom<[number, number]>([1, 64], [2, 96], [64, 3], [16, 20], [7, 128]),
          fc.boolean(),
          fc.nat(),
        )
        .map(([leading, [rows, columns], adjoint, seed]): OpInstance => {
          const random = stream(seed, 'matrix');
          const weights = Float32Array.from({ length: rows * columns }, () => random.normal());
          const rounded = quantizeFourBit(weights, [rows, columns]);
          const [codes, absmax] = [rounded.packed, scalesOf(rounded)];
          const matrix = { shape: [rows, columns], data: Float64Array.from(dequantizeFourBit(rounded)) };
          return {
            operands: [float([...leading, adjoint ? rows : columns])],
            build: ([x], graph) => {
              const parts = {
                codes: build.constant(graph, 'uint8', [codes.length], [...codes]),
                absmax: build.constant(graph, 'float32', [absmax.length], [...absmax]),
              };
              return build.nf4Matmul(x!, { rows, columns, ...parts }, adjoint);
            },
            reference: ([x]) => reference.matmul(x!, matrix, false, !adjoint),
          };
        }),
    ),
    float64: false,
  },
  differentiable(
    'streamedMatmul',
    fc
      .tuple(shape(1, 2), fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 4 }), fc.boolean(), fc.nat())
      .chain(([leading, rows, columns, adjoint, seed]) =>
        fc.integer({ min: 1, max: rows * columns + 1 }).map((piece): OpInstance => {
          const random = stream(seed, 'matrix');
          const matrix = ndarray([rows, columns], () => Math.fround(2 * random.uniform() - 1));
          return {
            operands: [float([...leading, adjoint ? rows : columns])],
            build: ([x], graph, dtype) => {
              const weight = build.constant(graph, dtype, [rows, columns], [...matrix.data]);
              return build.streamedMatmul(x!, weight, { adjoint, piece });
            },
            reference: ([x]) => reference.matmul(x!, matrix, false, !adjoint),
          };
        }),
      ),
    'in pieces',
  ),
];
