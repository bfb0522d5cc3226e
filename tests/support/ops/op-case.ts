import fc from 'fast-check';
import { evaluateDim, type Dim } from '../../../src/graph/dim.js';
import { elementCount, tensor, type DType, type Tensor } from '../../../src/graph/tensor.js';
import type { Graph, Value } from '../../../src/graph/graph.js';
import type { OpName } from '../../../src/ops/record.js';
import { stream, type RandomStream } from '../../../src/random.js';
import type { NdArray } from '../ndarray.js';

/** The value of a dimension under the sizes that its symbols have in one feed. */
export type SizeOf = (dim: Dim) => number;

/** What an element is drawn from, given its position in the tensor. */
export type Sampler = (random: RandomStream, position: number, size: SizeOf) => number;

export interface OperandSpec {
  /** 'float': float32 or float64, as the check asks. */
  readonly dtype: 'float' | Exclude<DType, 'float32' | 'float64'>;
  readonly dims: readonly Dim[];
  readonly sample: Sampler;
}

/** One op with attributes and operand types: what to build, and what must come out. */
export interface OpInstance {
  readonly operands: readonly OperandSpec[];
  build(values: readonly Value[], graph: Graph, float: 'float32' | 'float64'): Value;
  reference(arrays: readonly NdArray[], size: SizeOf): NdArray;
}

export interface OpCase {
  readonly op: OpName;
  /** What the case varies, where an op has several. */
  readonly about?: string;
  readonly instances: fc.Arbitrary<OpInstance>;
  /** Whether the CPU provider has a float64 kernel. */
  readonly float64: boolean;
  /** Whether the value is a float that gradients are taken of. */
  readonly differentiable: boolean;
}

export const titleOf = ({ op, about }: OpCase): string => (about === undefined ? op : `${op}, ${about}`);

type Draw = fc.Arbitrary<OpInstance>;

export const differentiable = (op: OpName, instances: Draw, about?: string): OpCase => ({
  op,
  instances,
  float64: true,
  differentiable: true,
  ...(about === undefined ? {} : { about }),
});

export const forwardOnly = (op: OpName, instances: Draw, about?: string): OpCase => ({
  op,
  instances,
  float64: true,
  differentiable: false,
  ...(about === undefined ? {} : { about }),
});

/** Symbols that drawn shapes use. */
const symbols = ['A', 'B', 'C'] as const;

/** The sizes that the symbols have in one feed. */
export const sizes: fc.Arbitrary<ReadonlyMap<string, number>> = fc
  .tuple(...symbols.map(() => fc.integer({ min: 1, max: 3 })))
  .map((drawn) => new Map(symbols.map((symbol, position) => [symbol, drawn[position]!])));

/** A dimension: small, or a symbol, or a sum or product of such. */
export const dim: fc.Arbitrary<Dim> = fc.oneof(
  { arbitrary: fc.integer({ min: 1, max: 3 }), weight: 3 },
  { arbitrary: fc.constantFrom<Dim>(...symbols), weight: 3 },
);

export const shape = (minRank: number, maxRank: number): fc.Arbitrary<Dim[]> =>
  fc.array(dim, { minLength: minRank, maxLength: maxRank });

/** An axis of a shape of that rank. */
export const axisOf = (dims: readonly Dim[]): fc.Arbitrary<number> => fc.nat(dims.length - 1);

/** Shapes that broadcast to the given one: leading axes left out, some others 1. */
export const broadcastsTo = (dims: readonly Dim[]): fc.Arbitrary<Dim[]> =>
  fc
    .tuple(fc.nat(dims.length), fc.array(fc.boolean(), { minLength: dims.length, maxLength: dims.length }))
    .map(([skipped, ones]) => dims.map((size, axis) => (ones[axis]! ? 1 : size)).slice(skipped));

/** Two shapes that broadcast with each other. */
export const broadcastPair: fc.Arbitrary<[Dim[], Dim[]]> = shape(0, 4).chain((dims) =>
  fc
    .tuple(broadcastsTo(dims), broadcastsTo(dims))
    .chain(([a, b]) => fc.constantFrom<[Dim[], Dim[]]>([dims, b], [a, dims], [a, b])),
);

const within =
  (low: number, high: number): Sampler =>
  (random) =>
    Math.fround(low + (high - low) * random.uniform());

export const anyReal = within(-2, 2);
export const positive = within(0.3, 3);
export const nonZero: Sampler = (random) => Math.fround((random.integer(2) * 2 - 1) * (0.5 + 2 * random.uniform()));

/** Multiples of 1/16, which survive a cast to float32 and back. */
export const sixteenths: Sampler = (random) => (random.integer(65) - 32) / 16;

/** Values whose distance is at least 1/64 within a tensor, so that a small step changes no order. */
export const distinct: Sampler = (random, position) => random.integer(9) - 4 + ((position * 37) % 81) / 64;

export const integerBelow =
  (limit: Dim): Sampler =>
  (random, _, size) =>
    random.integer(size(limit));

export const truth: Sampler = (random) => random.integer(2);

export const float = (dims: readonly Dim[], sample: Sampler = anyReal): OperandSpec => ({
  dtype: 'float',
  dims,
  sample,
});

export const int32 = (dims: readonly Dim[], sample: Sampler): OperandSpec => ({ dtype: 'int32', dims, sample });

export const bool = (dims: readonly Dim[]): OperandSpec => ({ dtype: 'bool', dims, sample: truth });

/** Numbers for every operand, as the sizes and the seed have them. */
export function fill(instance: OpInstance, bindings: ReadonlyMap<string, number>, seed: number): NdArray[] {
  const size: SizeOf = (dim) => evaluateDim(dim, bindings);
  return instance.operands.map(({ dims, sample }, operand) => {
    const random = stream(seed, operand);
    const drawn = dims.map(size);
    const data = Float64Array.from({ length: elementCount(drawn) }, (_, position) => sample(random, position, size));
    return { shape: drawn, data };
  });
}

export const toTensor = (dtype: DType, { shape, data }: NdArray): Tensor => tensor(dtype, shape, data);

export const toNdArray = ({ shape, data }: Tensor): NdArray => ({
  shape,
  data: Float64Array.from(data as ArrayLike<number | bigint>, Number),
});

export const inputName = (operand: number): string => `x${operand}`;

export const dtypeOf = (operand: OperandSpec, float: 'float32' | 'float64'): DType =>
  operand.dtype === 'float' ? float : operand.dtype;

/** Feeds for the operands of an instance. */
export const feedsOf = (
  instance: OpInstance,
  arrays: readonly NdArray[],
  float: 'float32' | 'float64',
): Record<string, Tensor> =>
  Object.fromEntries(
    arrays.map((array, operand) => [inputName(operand), toTensor(dtypeOf(instance.operands[operand]!, float), array)]),
  );

/** Declares the operands of an instance as inputs of a graph. */
export const inputsOf = (instance: OpInstance, graph: Graph, float: 'float32' | 'float64'): Value[] =>
  instance.operands.map((operand, position) => graph.input(inputName(position), dtypeOf(operand, float), operand.dims));
