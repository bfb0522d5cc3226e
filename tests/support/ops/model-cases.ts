import fc from 'fast-check';
import { stream } from '../../../src/random.js';
import { ndarray } from '../ndarray.js';
import { mulDims, type Dim } from '../../../src/graph/dim.js';
import * as build from '../../../src/ops/build.js';
import {
  broadcastsTo,
  differentiable,
  dim,
  distinct,
  float,
  forwardOnly,
  int32,
  integerBelow,
  shape,
  type OpCase,
  type OpInstance,
  type Sampler,
  type SizeOf,
} from './op-case.js';
import * as reference from './reference.js';
import { broadcastMap, logSoftmax, mapRows } from './reference.js';

/** So large that the gradient at a row of nearly equal values is well-conditioned. */
const epsilon = 0.25;

const overLastAxis = (
  make: typeof build.softmax,
  f: (row: readonly number[]) => readonly number[],
): fc.Arbitrary<OpInstance> =>
  shape(1, 4).map((dims) => ({
    operands: [float(dims)],
    build: ([x]) => make(x!),
    reference: ([x]) => mapRows(x!, f),
  }));

/** Leading axes of two operands of a matrix product: none, the same, or such as broadcast. */
const leadingAxes: fc.Arbitrary<[Dim[], Dim[]]> = shape(0, 2).chain((dims) =>
  broadcastsTo(dims).chain((other) => fc.constantFrom<[Dim[], Dim[]]>([dims, dims], [dims, other], [other, dims])),
);

const matmul = leadingAxes.chain(([leftLeading, rightLeading]) =>
  fc.tuple(dim, dim, dim, fc.boolean(), fc.boolean()).map(([m, k, n, transA, transB]): OpInstance => ({
    operands: [
      float([...leftLeading, ...(transA ? [k, m] : [m, k])]),
      float([...rightLeading, ...(transB ? [n, k] : [k, n])]),
    ],
    build: ([a, b]) => build.matmul(a!, b!, { transA, transB }),
    reference: ([a, b]) => reference.matmul(a!, b!, transA, transB),
  })),
);

const rowsAndIds = fc.tuple(dim, dim).map(([rows, vocabulary]) => ({
  logits: float([rows, vocabulary]),
  ids: int32([rows], integerBelow(vocabulary)),
  rows,
}));

export const modelCases: readonly OpCase[] = [
  differentiable('matmul', matmul),
  differentiable(
    'matmul',
    fc.tuple(dim, dim, dim, fc.boolean(), fc.boolean()).map(([m, k, n, transA, transB]): OpInstance => ({
      operands: [float(transA ? [k, m] : [m, k]), float(transB ? [n, k] : [k, n]), float([m, n])],
      build: (values, graph) => graph.add('matmul', values, { transA, transB })[0]!,
      reference: ([a, b, c]) => broadcastMap((x, y) => x + y, c!, reference.matmul(a!, b!, transA, transB)),
    })),
    'added to a matrix',
  ),
  differentiable(
    'softmax',
    overLastAxis(build.softmax, (row) => logSoftmax(row).map(Math.exp)),
  ),
  differentiable('logSoftmax', overLastAxis(build.logSoftmax, logSoftmax)),
  differentiable(
    'rmsNorm',
    shape(1, 4).map((dims) => ({
      operands: [float(dims), float(dims.slice(-1))],
      build: ([x, weight]) => build.rmsNorm(x!, weight!, epsilon),
      reference: ([x, weight]) => reference.rmsNorm(x!, weight!, epsilon),
    })),
  ),
  differentiable(
    'layerNorm',
    shape(1, 4).map((dims) => ({
      operands: [float(dims), float(dims.slice(-1)), float(dims.slice(-1))],
      build: ([x, weight, bias]) => build.layerNorm(x!, weight!, bias!, epsilon),
      reference: ([x, weight, bias]) => reference.layerNorm(x!, weight!, bias!, epsilon),
    })),
  ),
  differentiable(
    'gatherRows',
    fc.tuple(shape(1, 3), shape(0, 2)).map(([table, indices]) => ({
      operands: [float(table), int32(indices, integerBelow(table[0]!))],
      build: ([rows, chosen]) => build.gatherRows(rows!, chosen!),
      reference: ([rows, chosen]) => reference.gatherRows(rows!, chosen!),
    })),
  ),
  differentiable(
    'rearrangeRows',
    fc.tuple(shape(0, 2), dim, fc.boolean(), fc.constantFrom('from', 'to')).map(([rest, count, inFront, holes]) => {
      // Of twice as many, one half belongs to the few.
      const shift = (size: SizeOf): number => (inFront ? size(count) : 0);
      const ofMany: Sampler = (_, at, size) => {
        const index = at - shift(size);
        return index >= 0 && index < size(count) ? index : -1;
      };
      const ofFew: Sampler = (_, at, size) => at + shift(size);
      return {
        operands:
          holes === 'from'
            ? [float([count, ...rest]), int32([2, count], ofMany), int32([count], ofFew)]
            : [float([mulDims(2, count), ...rest]), int32([count], ofFew), int32([mulDims(2, count)], ofMany)],
        build: ([x, from, to]) => build.rearrangeRows(x!, { from: from!, to: to!, holes }),
        reference: ([x, from]) => reference.rearrangeRows(x!, from!),
      };
    }),
  ),
  differentiable(
    'scatterAddRows',
    fc.tuple(shape(1, 3), dim).map(([updates, rows]) => ({
      // The last operand gives the number of rows its size.
      operands: [float(updates), int32(updates.slice(0, 1), integerBelow(rows)), float([rows, ...updates.slice(1)])],
      build: ([given, targets, base]) => build.add(base!, build.scatterAddRows(given!, targets!, rows)),
      reference: ([given, targets, base], size) =>
        broadcastMap((a, b) => a + b, base!, reference.scatterAddRows(given!, targets!, size(rows))),
    })),
  ),
  differentiable(
    'scatterAddRows',
    fc.tuple(shape(1, 3), dim).map(([updates, rows]) => ({
      operands: [float(updates), int32(updates.slice(0, 1), integerBelow(rows)), float([rows, ...updates.slice(1)])],
      build: (values, graph) => graph.add('scatterAddRows', values, { rows })[0]!,
      reference: ([given, targets, base], size) =>
        broadcastMap((a, b) => a + b, base!, reference.scatterAddRows(given!, targets!, size(rows))),
    })),
    'onto rows that are there',
  ),
  differentiable(
    'gatherElements',
    fc.tuple(shape(0, 3), dim, dim).map(([leading, width, picks]) => ({
      operands: [float([...leading, width]), int32([...leading, picks], integerBelow(width))],
      build: ([x, chosen]) => build.gatherElements(x!, chosen!),
      reference: ([x, chosen]) => reference.gatherElements(x!, chosen!),
    })),
  ),
  differentiable(
    'scatterAddElements',
    fc.tuple(shape(0, 3), dim, dim).map(([leading, count, width]) => ({
      operands: [
        float([...leading, count]),
        int32([...leading, count], integerBelow(width)),
        float([...leading, width]),
      ],
      build: ([given, targets, base]) => build.add(base!, build.scatterAddElements(given!, targets!, width)),
      reference: ([given, targets, base], size) =>
        broadcastMap((a, b) => a + b, base!, reference.scatterAddElements(given!, targets!, size(width))),
    })),
  ),
  ...(['values', 'indices'] as const).map((which) =>
    forwardOnly(
      'topK',
      fc.tuple(shape(0, 3), fc.integer({ min: 1, max: 6 })).chain(([leading, width]) =>
        fc.integer({ min: 1, max: width }).map((count) => ({
          // Few values, so that some are equal.
          operands: [float([...leading, width], (random) => random.integer(4))],
          build: ([x], _graph, dtype) => build.cast(build.topK(x!, count)[which], dtype),
          reference: ([x]) => reference.topK(x!, count)[which],
        })),
      ),
      which,
    ),
  ),
  differentiable(
    'topK',
    shape(1, 3).map((dims) => ({
      operands: [float(dims, distinct)],
      build: ([x]) => build.topK(x!, dims.at(-1)!).values,
      reference: ([x]) => reference.topK(x!, x!.shape.at(-1)!).values,
    })),
    'of all, which sorts',
  ),
  differentiable(
    'tokenLogProbs',
    rowsAndIds.map(({ logits, ids }) => ({
      operands: [logits, ids],
      build: ([x, chosen]) => build.tokenLogProbs(x!, chosen!),
      reference: ([x, chosen]) => reference.tokenLogProbs(x!, chosen!),
    })),
  ),
  differentiable(
    'linearLogProbs',
    fc
      .tuple(
        dim,
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 4 }),
        fc.nat(),
      )
      .map(([rows, width, vocabulary, chunk, seed]): OpInstance => {
        const random = stream(seed, 'head');
        // A constant: the head is frozen.
        const head = ndarray([vocabulary, width], () => Math.fround(2 * random.uniform() - 1));
        return {
          operands: [float([rows, width]), int32([rows], integerBelow(vocabulary))],
          build: ([hidden, ids], graph, dtype) => {
            const matrix = build.constant(graph, dtype, [vocabulary, width], [...head.data]);
            const given = { hidden: hidden!, ids: ids!, rows: build.gatherRows(matrix, ids!) };
            return build.linearLogProbs(given, matrix, chunk).logProbs;
          },
          reference: ([hidden, ids]) => reference.tokenLogProbs(reference.matmul(hidden!, head, false, true), ids!),
        };
      }),
  ),
  forwardOnly(
    'tokenLogProbsGrad',
    rowsAndIds.map(({ logits, ids, rows }) => ({
      operands: [logits, ids, float([rows])],
      build: (values, graph) => graph.add('tokenLogProbsGrad', values)[0]!,
      reference: ([x, chosen, grad]) => reference.tokenLogProbsGrad(x!, chosen!, grad!),
    })),
  ),
  differentiable(
    'tokenEntropies',
    fc.tuple(dim, dim).map((dims) => ({
      operands: [float(dims)],
      build: ([x]) => build.tokenEntropies(x!),
      reference: ([x]) => reference.tokenEntropies(x!),
    })),
  ),
  differentiable(
    'rotary',
    fc.tuple(shape(0, 3), fc.integer({ min: 1, max: 3 })).chain(([leading, half]) =>
      broadcastsTo(leading).map((angles) => ({
        operands: [float([...leading, 2 * half]), float([...angles, half]), float([...angles, half])],
        build: ([x, cosines, sines]) => build.rotary(x!, cosines!, sines!),
        reference: ([x, cosines, sines]) => reference.rotary(x!, cosines!, sines!),
      })),
    ),
  ),
  differentiable(
    'rotary',
    fc
      .tuple(shape(1, 2), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 5 }))
      .map(([tokens, heads, half]) => ({
        operands: [float([...tokens, heads, 2 * half]), float([...tokens, 1, half]), float([...tokens, 1, half])],
        build: ([x, cosines, sines]) => build.rotary(x!, cosines!, sines!),
        reference: ([x, cosines, sines]) => reference.rotary(x!, cosines!, sines!),
      })),
    'heads that share the angles of their token',
  ),
];
