import { sizeOf } from '../graph/dim.js';
import type { TensorType, Value } from '../graph/graph.js';
import { int8Matmul } from './build.js';
import { arity, requireAxis, requireDType, requireRank, requireShape } from './infer.js';
import { nonDifferentiable, type Emitter, type OpRecords } from './record.js';

/** Largest magnitude of an 8-bit integer on either side of zero. */
const LEVELS = 127;

/**
 * How many times the mean magnitude of its row a value is at most rounded to 8 bits; what exceeds it is multiplied in
 * float32 (LLM.int8(), Dettmers et al., 2022). Of normal values none of 10²⁰ exceeds it.
 */
const OUTLIER = 12;

/** The smallest scale of a row: a row of zeros stays zeros. */
const SMALLEST = 1e-30;

/** Entries that share a scale. */
export const INT4_BLOCK = 32;

type Five<T> = [T, T, T, T, T];

const frozen = (): never => {
  throw new Error('a weight in 8 bits is frozen: it has no gradient, keep it in float32 to train it');
};

interface EmittedMatrix {
  readonly weight: string;
  readonly inputScale: string;
  readonly outputScale: string;
}

/** Writes the product of rows (n, K) with a matrix (K, N) in 8 bits. */
export function int8Product(emitter: Emitter, x: string, { weight, inputScale, outputScale }: EmittedMatrix): string {
  if (emitter.device !== 'cpu')
    return dequantisedProduct(emitter, emitter.node('Mul', [x, inputScale]), weight, outputScale);
  const scaled = emitter.node('Mul', [x, inputScale]);
  const magnitudes = emitter.node('Abs', [scaled]);
  const number = (value: number): string => emitter.constant('float32', [], [value]);
  const mean = emitter.node('ReduceMean', [magnitudes, emitter.constant('int64', [1], [1])], { keepdims: 1 });
  const highest = emitter.node('Max', [emitter.node('Mul', [mean, number(OUTLIER / LEVELS)]), number(SMALLEST)]);
  const step = emitter.node('Min', [rowSteps(emitter, magnitudes, LEVELS), highest]);
  const product = productOfRows(emitter, scaled, { step, zero: LEVELS + 1, weight, outputScale });

  // What the largest integers do not reach, column by column of x; mostly there is none.
  const reach = emitter.node('Mul', [step, number(LEVELS + 0.5)]);
  const beyond = emitter.node(
    'ReduceMax',
    [emitter.node('Sub', [magnitudes, reach]), emitter.constant('int64', [1], [0])],
    { keepdims: 0 },
  );
  const columns = emitter.node('Reshape', [
    emitter.node('NonZero', [emitter.node('Greater', [beyond, number(0)])]),
    emitter.constant('int64', [1], [-1]),
  ]);
  const there = emitter.node('Gather', [scaled, columns], { axis: 1 });
  const reached = emitter.node('Max', [
    emitter.node('Min', [there, emitter.node('Mul', [step, number(LEVELS)])]),
    emitter.node('Mul', [step, number(-LEVELS - 1)]),
  ]);
  const rows = emitter.node('Cast', [emitter.node('Gather', [weight, columns], { axis: 0 })], { to: 1 });
  const rest = [emitter.node('Sub', [there, reached]), emitter.node('Mul', [rows, outputScale]), product];
  return emitter.node('Gemm', rest);
}

/**
 * Rows (n, K) · Q (K, N) · diag(scale) in float32 with the matrix widened on the way: for devices without 8-bit kernels.
 * The rows are not rounded, so it is nearer to the float32 product than the other is.
 */
export function dequantisedProduct(emitter: Emitter, rows: string, weight: string, scale: string): string {
  return emitter.node('MatMul', [rows, emitter.node('DequantizeLinear', [weight, scale], { axis: 1 })]);
}

/** The scale of each row, (n, 1), that spreads its largest value over so many levels. */
export function rowSteps(emitter: Emitter, magnitudes: string, levels: number): string {
  const last = emitter.constant('int64', [1], [1]);
  const largest = emitter.node('ReduceMax', [magnitudes, last], { keepdims: 1 });
  const even = emitter.node('Mul', [largest, emitter.constant('float32', [], [1 / levels])]);
  return emitter.node('Max', [even, emitter.constant('float32', [], [SMALLEST])]);
}

/** Rounds rows with their steps and multiplies: integers inside, float32 outside. */
export function productOfRows(
  emitter: Emitter,
  rows: string,
  by: { readonly step: string; readonly zero: number; readonly weight: string; readonly outputScale: string },
): string {
  const zero = emitter.constant('uint8', [], [by.zero]);
  const steps = emitter.node('Reshape', [by.step, emitter.constant('int64', [1], [-1])]);
  const zeros = emitter.node('Expand', [zero, emitter.node('Shape', [steps])]);
  const bytes = emitter.node('QuantizeLinear', [rows, steps, zeros], { axis: 0 });
  const one = emitter.constant('float32', [], [1]);
  const operands = [bytes, by.weight, one, by.outputScale, zero];
  return emitter.node('Mul', [emitter.node('MatMulIntegerToFloat', operands, {}, 'com.microsoft'), by.step]);
}

/**
 * Products with a frozen matrix kept in 8 bits. Both sides of the matrix have scales, W = diag(c) · Q · diag(s), so that
 * neither a large row nor a large column of W costs the others their precision. Each row of x is rounded with a scale of
 * its own, and outliers are multiplied apart ("LLM.int8()", Dettmers et al., 2022, https://arxiv.org/abs/2208.07339), so
 * that what a token computes does not depend on what it is batched with; sums are exact 32-bit integers.
 */
export const quantized: OpRecords<'int8Matmul' | 'int4Matmul'> = {
  // y = ((x ∘ c) / r → 8 bits) · Q ∘ s · r + rest · Q ∘ s, r = min(max |x ∘ c|, 12 · mean |x ∘ c|) / 127 of each row
  int8Matmul: {
    infer: (inputs) => {
      arity(inputs, 5);
      const [x, weight, transposed, inputScale, outputScale] = inputs as Five<TensorType>;
      requireDType(['float32'], x, inputScale, outputScale);
      requireDType(['int8'], weight, transposed);
      requireRank(weight, 2, 'the matrix');
      const [inner, outer] = [weight.shape[0]!, weight.shape[1]!];
      requireShape(transposed, [outer, inner], 'the transposed matrix');
      requireShape(inputScale, [inner], 'the scales of the inputs');
      requireShape(outputScale, [outer], 'the scales of the outputs');
      requireAxis(x, x.shape.length - 1);
      requireShape({ ...x, shape: x.shape.slice(-1) }, [inner], 'a row of the left side');
      return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), outer] }];
    },
    emit: (emitter, node) => {
      const [x, weight, , inputScale, outputScale] = node.inputs.map((input) => emitter.name(input)) as Five<string>;
      const { shape } = node.inputs[0]!;
      const matrix = { weight, inputScale, outputScale };
      if (shape.length === 2) return [int8Product(emitter, x, matrix)];
      const rows = emitter.dims([sizeOf(shape.slice(0, -1)), shape.at(-1)!]);
      const y = int8Product(emitter, emitter.node('Reshape', [x, rows]), matrix);
      return [emitter.node('Reshape', [y, emitter.dims(node.outputs[0]!.shape)])];
    },
    // dx = ((dy ∘ s) · Qᵀ) ∘ c: the same product with the sides exchanged
    vjp: ({ grad, inputs }) => {
      const [, weight, transposed, inputScale, outputScale] = inputs as Five<Value>;
      const adjoint = { weight: transposed, transposed: weight, inputScale: outputScale, outputScale: inputScale };
      return [() => int8Matmul(grad, adjoint), frozen, frozen, frozen, frozen];
    },
  },
  // W[n, k] = scale[n, k/32] · (entry − 8), entries 0…15. The product rounds blocks of 32 of x to 8 bits: each row alone.
  int4Matmul: {
    infer: (inputs) => {
      arity(inputs, 3);
      const [x, packed, scale] = inputs as [TensorType, TensorType, TensorType];
      requireDType(['float32'], x, scale);
      requireDType(['uint8'], packed);
      requireRank(packed, 3, 'the matrix');
      const [outer, blocks] = [packed.shape[0]!, packed.shape[1]!];
      if (typeof outer !== 'number' || typeof blocks !== 'number')
        throw new RangeError('the matrix needs a fixed size');
      requireShape(packed, [outer, blocks, INT4_BLOCK / 2], 'the matrix');
      requireShape(scale, [outer, blocks], 'the scales');
      requireAxis(x, x.shape.length - 1);
      requireShape({ ...x, shape: x.shape.slice(-1) }, [blocks * INT4_BLOCK], 'a row of the left side');
      return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), outer] }];
    },
    emit: (emitter, node) => {
      const inputs = node.inputs.map((input) => emitter.name(input));
      const [outer, blocks] = node.inputs[1]!.shape as [number, number];
      const sizes = { K: blocks * INT4_BLOCK, N: outer, bits: 4, block_size: INT4_BLOCK, accuracy_level: 4 };
      return [emitter.node('MatMulNBits', inputs, sizes, 'com.microsoft')];
    },
    vjp: nonDifferentiable('a matrix in 4 bits is there to write texts with'),
  },
};
