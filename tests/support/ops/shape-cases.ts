import fc from 'fast-check';
import { addDims, sizeOf as elements, type Dim } from '../../../src/graph/dim.js';
import * as build from '../../../src/ops/build.js';
import {
  axisOf,
  broadcastsTo,
  differentiable,
  dim,
  distinct,
  float,
  int32,
  forwardOnly,
  integerBelow,
  shape,
  type OpCase,
  type OpInstance,
} from './op-case.js';
import { broadcastMap, broadcastTo, concat, cumulativeSum, pad, reduce, slice, transpose } from './reference.js';
import { ndarray, range, sum } from '../ndarray.js';

type Reduction = typeof build.reduceSum;

const reduction = (
  make: Reduction,
  combine: (values: readonly number[]) => number,
  sample?: typeof distinct,
): fc.Arbitrary<OpInstance> =>
  shape(1, 4).chain((dims) =>
    fc
      .tuple(fc.subarray(range(dims.length), { minLength: 1 }), fc.boolean(), fc.boolean())
      .map(([axes, keepDims, fromTheEnd]) => ({
        operands: [float(dims, sample)],
        build: ([x]) =>
          make(
            x!,
            axes.map((axis) => (fromTheEnd ? axis - dims.length : axis)),
            keepDims,
          ),
        reference: ([x]) => reduce(x!, axes, keepDims, combine),
      })),
  );

const mean = (values: readonly number[]): number => sum(values) / values.length;

/** Ways to write the dimensions of a shape with as many elements in another shape. */
const regroupings = (dims: readonly Dim[]): fc.Arbitrary<Dim[]> =>
  fc.constantFrom<Dim[][]>(
    [elements(dims)],
    [1, ...dims],
    [...dims, 1],
    [elements(dims.slice(0, -1)), ...dims.slice(-1)],
    [...dims.slice(0, 1), elements(dims.slice(1))],
    [...dims].reverse(),
  );

export const shapeCases: readonly OpCase[] = [
  differentiable('reduceSum', reduction(build.reduceSum, sum)),
  differentiable('reduceMean', reduction(build.reduceMean, mean)),
  differentiable(
    'reduceMax',
    reduction(build.reduceMax, (values) => Math.max(...values), distinct),
  ),
  differentiable(
    'reduceSum',
    shape(0, 4).map((dims) => ({
      operands: [float(dims)],
      build: ([x]) => build.reduceSum(x!),
      reference: ([x]) => reduce(x!, range(dims.length), false, sum),
    })),
    'over all axes',
  ),
  differentiable(
    'cumulativeSum',
    shape(1, 4).chain((dims) =>
      fc.tuple(axisOf(dims), fc.boolean()).map(([axis, reverse]) => ({
        operands: [float(dims)],
        build: ([x]) => build.cumulativeSum(x!, axis, reverse),
        reference: ([x]) => cumulativeSum(x!, axis, reverse),
      })),
    ),
  ),
  differentiable(
    'reshape',
    shape(1, 4).chain((dims) =>
      regroupings(dims).map((target) => ({
        operands: [float(dims)],
        build: ([x]) => build.reshape(x!, target),
        reference: ([x], size) => ({ shape: target.map(size), data: x!.data }),
      })),
    ),
  ),
  differentiable(
    'transpose',
    shape(1, 4).chain((dims) =>
      fc.shuffledSubarray(range(dims.length), { minLength: dims.length }).map((permutation) => ({
        operands: [float(dims)],
        build: ([x]) => build.transpose(x!, permutation),
        reference: ([x]) => transpose(x!, permutation),
      })),
    ),
  ),
  differentiable(
    'broadcastTo',
    shape(0, 4).chain((dims) =>
      broadcastsTo(dims).map((from) => ({
        // The second operand gives the symbols of the target their sizes.
        operands: [float(from), float(dims)],
        build: ([x, like]) => build.mul(build.broadcastTo(x!, dims), like!),
        reference: ([x, like], size) => broadcastMap((a, b) => a * b, broadcastTo(x!, dims.map(size)), like!),
      })),
    ),
  ),
  differentiable(
    'concat',
    shape(1, 4).chain((dims) =>
      fc.tuple(axisOf(dims), fc.array(dim, { minLength: 1, maxLength: 3 })).map(([axis, lengths]) => ({
        operands: lengths.map((length) => float(dims.with(axis, length))),
        build: (values) => build.concat(values, axis),
        reference: (arrays) => concat(arrays, axis),
      })),
    ),
  ),
  differentiable(
    'slice',
    shape(1, 4).chain((dims) =>
      fc.tuple(axisOf(dims), dim, dim, dim).map(([axis, start, length, rest]) => {
        const end = addDims(start, length);
        return {
          // The extra operands give the symbols of the borders their sizes.
          operands: [float(dims.with(axis, addDims(end, rest))), float([start]), float([length]), float([rest])],
          build: ([x, ...bounds]) =>
            bounds.reduce(
              (total, bound) => build.add(total, build.reduceSum(bound)),
              build.slice(x!, axis, start, end),
            ),
          reference: ([x, ...bounds], size) => {
            const shift = sum(bounds.flatMap(({ data }) => [...data]));
            return broadcastMap((value) => value + shift, slice(x!, axis, size(start), size(end)));
          },
        };
      }),
    ),
  ),
  differentiable(
    'pad',
    shape(1, 4).chain((dims) =>
      fc.tuple(axisOf(dims), dim, dim).map(([axis, before, after]) => ({
        // The extra operands give the symbols of the margins their sizes.
        operands: [float(dims), float([before]), float([after])],
        build: ([x, ...margins]) =>
          margins.reduce(
            (total, margin) => build.add(total, build.reduceSum(margin)),
            build.padAxis(x!, axis - dims.length, before, after),
          ),
        reference: ([x, ...margins], size) => {
          const shift = sum(margins.flatMap(({ data }) => [...data]));
          return broadcastMap((value) => value + shift, pad(x!, axis, size(before), size(after)));
        },
      })),
    ),
  ),
];

export const sourceCases: readonly OpCase[] = [
  forwardOnly(
    'iota',
    dim.map((length) => ({
      operands: [int32([length], integerBelow(4))],
      build: ([x], graph) => build.add(x!, build.iota(graph, length)),
      reference: ([x]) => ndarray(x!.shape, ([position]) => x!.data[position!]! + position!),
    })),
  ),
  forwardOnly(
    'constant',
    fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 3, maxLength: 3 }).map((values) => ({
      operands: [float([3])],
      build: ([x], graph, own) => build.add(x!, build.constant(graph, own, [1, 3], values)),
      reference: ([x]) => broadcastMap((a, b) => a + b, x!, { shape: [1, 3], data: Float64Array.from(values) }),
    })),
  ),
  forwardOnly(
    'stopGradient',
    shape(0, 3).map((dims) => ({
      operands: [float(dims)],
      build: ([x]) => build.stopGradient(x!),
      reference: ([x]) => x!,
    })),
  ),
];
