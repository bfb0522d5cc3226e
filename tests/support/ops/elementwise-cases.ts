import type fc from 'fast-check';
import * as build from '../../../src/ops/build.js';
import type { Value } from '../../../src/graph/graph.js';
import type { OpName } from '../../../src/ops/record.js';
import {
  anyReal,
  bool,
  broadcastPair,
  broadcastsTo,
  differentiable,
  distinct,
  float,
  forwardOnly,
  int32,
  nonZero,
  positive,
  shape,
  sixteenths,
  type OpCase,
  type OpInstance,
  type OperandSpec,
  type Sampler,
} from './op-case.js';
import { broadcastMap, erf, map, sigmoid } from './reference.js';

const unary = (op: OpName, make: (x: Value) => Value, f: (x: number) => number, sample: Sampler = anyReal): OpCase =>
  differentiable(
    op,
    shape(0, 4).map((dims) => ({
      operands: [float(dims, sample)],
      build: ([x]) => make(x!),
      reference: ([x]) => map(f, x!),
    })),
  );

const pair = (
  make: (a: Value, b: Value) => Value,
  f: (...values: number[]) => number,
  operand: (dims: OperandSpec['dims'], side: number) => OperandSpec,
): fc.Arbitrary<OpInstance> =>
  broadcastPair.map((shapes) => ({
    operands: shapes.map(operand),
    build: ([a, b]) => make(a!, b!),
    reference: (arrays) => broadcastMap(f, ...arrays),
  }));

const binary = (
  op: OpName,
  make: (a: Value, b: Value) => Value,
  f: (...values: number[]) => number,
  left: Sampler = anyReal,
  right: Sampler = left,
): OpCase =>
  differentiable(
    op,
    pair(make, f, (dims, side) => float(dims, side === 0 ? left : right)),
  );

/** Never equal to a value of `distinct`, and at least 1/128 away from each. */
const besideDistinct: Sampler = (random, position, size) => distinct(random, position + 5, size) + 1 / 128;

const few: Sampler = (random) => random.integer(3);

/** The CPU provider has Erf and Gelu in float32 alone. */
const float32Only = (opCase: OpCase): OpCase => ({ ...opCase, float64: false });

export const elementwiseCases: readonly OpCase[] = [
  unary('neg', build.neg, (x) => -x),
  unary('exp', build.exp, Math.exp),
  unary('log', build.log, Math.log, positive),
  unary('sqrt', build.sqrt, Math.sqrt, positive),
  unary('reciprocal', build.reciprocal, (x) => 1 / x, nonZero),
  unary('tanh', build.tanh, Math.tanh),
  unary('sigmoid', build.sigmoid, sigmoid),
  float32Only(unary('erf', build.erf, erf)),
  unary('sin', build.sin, Math.sin),
  unary('cos', build.cos, Math.cos),
  unary('silu', build.silu, (x) => x * sigmoid(x)),
  float32Only(unary('gelu', build.gelu, (x) => (x * (1 + erf(x * Math.SQRT1_2))) / 2)),
  binary('add', build.add, (a, b) => a + b),
  binary('sub', build.sub, (a, b) => a - b),
  binary('mul', build.mul, (a, b) => a * b),
  binary('div', build.div, (a, b) => a / b, anyReal, nonZero),
  binary('minimum', build.minimum, (a, b) => Math.min(a, b), distinct, besideDistinct),
  binary('maximum', build.maximum, (a, b) => Math.max(a, b), distinct, besideDistinct),
  differentiable(
    'where',
    shape(0, 4)
      .chain((dims) => broadcastsTo(dims).chain((a) => broadcastsTo(dims).map((b) => [dims, a, b] as const)))
      .map(([condition, a, b]) => ({
        operands: [bool(condition), float(a), float(b)],
        build: ([chosen, yes, no]) => build.where(chosen!, yes!, no!),
        reference: (arrays) => broadcastMap((chosen, yes, no) => (chosen === 1 ? yes : no), ...arrays),
      })),
  ),
  differentiable(
    'where',
    shape(0, 4)
      .chain((dims) => broadcastsTo(dims).map((condition) => [condition, dims] as const))
      .map(([condition, a]) => ({
        operands: [bool(condition), float(a)],
        build: ([chosen, yes]) => build.where(chosen!, yes!, -3),
        reference: (arrays) => broadcastMap((chosen, yes) => (chosen === 1 ? yes : -3), ...arrays),
      })),
    'between a value and a number',
  ),
  differentiable(
    'cast',
    shape(0, 3).map((dims) => ({
      operands: [float(dims, sixteenths)],
      build: ([x], _, own) => build.cast(build.cast(x!, own === 'float32' ? 'float64' : 'float32'), own),
      reference: ([x]) => x!,
    })),
    'between floats',
  ),
];

export const logicCases: readonly OpCase[] = [
  forwardOnly(
    'cast',
    shape(0, 3).map((dims) => ({
      operands: [float(dims)],
      build: ([x]) => build.cast(x!, 'int32'),
      reference: ([x]) => map(Math.trunc, x!),
    })),
    'from a float to an integer',
  ),
  forwardOnly(
    'equal',
    pair(
      build.equal,
      (a, b) => Number(a === b),
      (dims) => int32(dims, few),
    ),
    'of integers',
  ),
  forwardOnly(
    'equal',
    pair(
      build.equal,
      (a, b) => Number(a === b),
      (dims) => float(dims, few),
    ),
    'of floats',
  ),
  forwardOnly(
    'less',
    pair(
      build.less,
      (a, b) => Number(a < b),
      (dims) => int32(dims, few),
    ),
    'of integers',
  ),
  forwardOnly(
    'less',
    pair(
      build.less,
      (a, b) => Number(a < b),
      (dims) => float(dims, few),
    ),
    'of floats',
  ),
  forwardOnly(
    'less',
    pair(
      build.greater,
      (a, b) => Number(a > b),
      (dims) => float(dims, few),
    ),
    'as greater',
  ),
  forwardOnly(
    'and',
    pair(build.and, (a, b) => a * b, bool),
  ),
  forwardOnly(
    'or',
    pair(build.or, (a, b) => Math.max(a, b), bool),
  ),
  forwardOnly(
    'not',
    shape(0, 4).map((dims) => ({
      operands: [bool(dims)],
      build: ([x]) => build.not(x!),
      reference: ([x]) => map((value) => 1 - value, x!),
    })),
  ),
];
