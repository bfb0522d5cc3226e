import { sizeOf, type Dim } from '../graph/dim.js';
import type { Node, TensorType, Value } from '../graph/graph.js';
import { int8Matmul } from './build.js';
import { arity, requireAxis, requireDType, requireRank, requireShape } from './infer.js';
import { nonDifferentiable, type Emitter, type NoAttributes, type OpRecord, type OpRecords } from './record.js';

/** Largest magnitude of an 8-bit integer on either side of zero. */
export const LEVELS = 127;

/** The smallest scale of a row: a row of zeros stays zeros. */
const SMALLEST = 1e-30;

/** How many entries may share a scale: the kernel's sizes, the largest first. */
const BLOCKS: readonly number[] = [256, 128, 64, 32, 16];

type Parts<T> = [T, T, T, T, T, T, T];

const frozen = (): never => {
  throw new Error('a weight in 8 bits is frozen: it has no gradient, keep it in float32 to train it');
};

/** A product's matrix by its ONNX names: what multiplies rows, (K, N), and the scales and outliers of both its sides. */
export interface EmittedMatrix {
  readonly weight: string;
  /** (K), absent where it is 1 outside of the outliers. */
  readonly rowScale: string | undefined;
  /** Scales of the outliers (K) → those that `outliers` names are read. */
  readonly inputScale: string;
  readonly outputScale: string;
  /** Columns of the rows that are multiplied in float32; absent where there are none. */
  readonly outliers: string | undefined;
}

/** The sides of a matrix for x · W, or for the adjoint g · Wᵀ. */
export function emittedMatrix(emitter: Emitter, parts: readonly Value[], adjoint: boolean): EmittedMatrix {
  const [weight, transposed, inputScale, outputScale, inputOutliers, outputOutliers] = parts as [
    Value,
    Value,
    Value,
    Value,
    Value,
    Value,
  ];
  const outliers = adjoint ? outputOutliers : inputOutliers;
  const rows = emitter.name(adjoint ? outputScale : inputScale);
  return {
    weight: emitter.name(adjoint ? transposed : weight),
    rowScale: adjoint ? rows : undefined,
    inputScale: rows,
    outputScale: emitter.name(adjoint ? inputScale : outputScale),
    outliers: emitter.isEmpty(outliers) ? undefined : emitter.name(outliers),
  };
}

/** Writes the product of rows (n, K) with a matrix (K, N) in 8 bits. */
export function int8Product(emitter: Emitter, x: string, matrix: EmittedMatrix): string {
  const { weight, rowScale, inputScale, outputScale, outliers } = matrix;
  if (emitter.device !== 'cpu') {
    return dequantisedProduct(emitter, emitter.node('Mul', [x, inputScale]), weight, outputScale);
  }
  const scale = outliers === undefined ? rowScale : withoutOutliers(emitter, inputScale, rowScale, outliers);
  const scaled = scale === undefined ? x : emitter.node('Mul', [x, scale]);
  const step = rowSteps(emitter, emitter.node('Abs', [scaled]), LEVELS);
  const product = productOfRows(emitter, scaled, { step, zero: LEVELS + 1, weight, outputScale });
  if (outliers === undefined) return product;
  const chosen = emitter.node('Mul', [
    emitter.node('Gather', [x, outliers], { axis: 1 }),
    emitter.node('Gather', [inputScale, outliers]),
  ]);
  const rows = emitter.node('Cast', [emitter.node('Gather', [weight, outliers], { axis: 0 })], { to: 1 });
  return emitter.node('Gemm', [chosen, emitter.node('Mul', [rows, outputScale]), product]);
}

/** Writes such a product of a node's first input (…, K), whatever its leading axes: a row of a token's is a row of the product. */
export function int8ProductOf(emitter: Emitter, node: Node, matrix: EmittedMatrix): string {
  const left = node.inputs[0]!;
  const x = emitter.name(left);
  const { dtype, shape } = left;
  if (shape.length === 2) return int8Product(emitter, x, matrix);
  const rows = [sizeOf(shape.slice(0, -1)), shape.at(-1)!];
  const flat = emitter.typed(emitter.node('Reshape', [x, emitter.dims(rows)]), { dtype, shape: rows });
  return emitter.node('Reshape', [int8Product(emitter, flat, matrix), emitter.dims(node.outputs[0]!.shape)]);
}

/** The scale of the rows, 0 at the outliers. */
function withoutOutliers(emitter: Emitter, inputScale: string, rowScale: string | undefined, outliers: string): string {
  const shape = (of: string): string => emitter.node('Shape', [of]);
  const number = (value: number): string => emitter.constant('float32', [], [value]);
  const rest = rowScale ?? emitter.node('Expand', [number(1), shape(inputScale)]);
  const zeros = emitter.node('Expand', [number(0), shape(outliers)]);
  return emitter.node('ScatterElements', [rest, outliers, zeros]);
}

/**
 * Rows (n, K) · Q (K, N) · diag(scale) in float32 with the matrix widened on the way: for devices without 8-bit kernels.
 * The rows are not rounded, so it is nearer to the float32 product than the other is.
 */
function dequantisedProduct(emitter: Emitter, rows: string, weight: string, scale: string): string {
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
  const steps = emitter.node('Squeeze', [by.step, emitter.constant('int64', [1], [1])]);
  const zeros = emitter.node('Expand', [zero, emitter.node('Shape', [steps])]);
  const bytes = emitter.node('QuantizeLinear', [rows, steps, zeros], { axis: 0 });
  const one = emitter.constant('float32', [], [1]);
  const operands = [bytes, by.weight, one, by.outputScale, zero];
  return emitter.node('Mul', [emitter.node('MatMulIntegerToFloat', operands, {}, 'com.microsoft'), by.step]);
}

/**
 * Products with a frozen matrix kept in 8 bits, W = diag(c) · Q · diag(s): s is a scale for each output, c is 1 but for
 * the columns of outliers. Each row of x is rounded with a scale of its own, so that what a token computes does not
 * depend on what it is batched with; sums are exact 32-bit integers. Outliers of either side are known beforehand and
 * multiplied apart in float32, on the side where they are rows' entries ("LLM.int8()", Dettmers et al., 2022,
 * https://arxiv.org/abs/2208.07339): a channel that is large in every token would cost all others their precision.
 */
export const quantized: OpRecords<'int8Matmul' | 'int4Matmul' | 'bytesMatmul'> = {
  // y = (x / r → 8 bits) · Q ∘ s · r, r = max |x| / 127 of each row; adjoint: y = (x ∘ s / r → 8 bits) · Qᵀ ∘ c · r
  int8Matmul: {
    infer: (inputs, { adjoint }) => {
      arity(inputs, 7);
      const [x, weight] = inputs as Parts<TensorType>;
      requireDType(['float32'], x);
      const [inner, outer] = requireInt8(inputs.slice(1));
      requireAxis(x, x.shape.length - 1);
      requireShape({ ...x, shape: x.shape.slice(-1) }, [adjoint ? outer : inner], 'a row of the left side');
      return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), weight.shape[adjoint ? 0 : 1]!] }];
    },
    emit: (emitter, node, { adjoint }) => {
      const matrix = emittedMatrix(emitter, node.inputs.slice(1), adjoint);
      return [int8ProductOf(emitter, node, matrix)];
    },
    // dx = dy · Wᵀ: the same product with the sides exchanged
    vjp: ({ grad, inputs, attributes: { adjoint } }) => {
      const [, weight, transposed, inputScale, outputScale, inputOutliers, outputOutliers] = inputs as Parts<Value>;
      const matrix = { weight, transposed, inputScale, outputScale, inputOutliers, outputOutliers };
      return [() => int8Matmul(grad, matrix, !adjoint), ...inputs.slice(1).map(() => frozen)];
    },
  },
  // W[n, k] = scale[n, k/block] · (entry − 8), entries 0…15
  int4Matmul: blockwise(4),
  // W[n, k] = scale[n, k/block] · (entry − 128), entries 0…255
  bytesMatmul: blockwise(8),
};

/**
 * Products with a matrix whose rows are blocks of unsigned entries, each block with a scale. The product rounds x, too, to 8
 * bits in blocks of as many entries: each row alone.
 */
function blockwise(bits: 4 | 8): OpRecord<NoAttributes> {
  const sizeOfBlock = ({ shape }: TensorType): number => (Number(shape[2]) * 8) / bits;
  return {
    infer: (inputs) => {
      arity(inputs, 3);
      const [x, packed, scale] = inputs as [TensorType, TensorType, TensorType];
      requireDType(['float32'], x, scale);
      requireDType(['uint8'], packed);
      requireRank(packed, 3, 'the matrix');
      const [outer, blocks] = [packed.shape[0]!, packed.shape[1]!];
      if (typeof outer !== 'number' || typeof blocks !== 'number')
        throw new RangeError('the matrix needs a fixed size');
      const size = sizeOfBlock(packed);
      if (!BLOCKS.includes(size)) throw new RangeError(`a block of ${size} entries is none of ${BLOCKS.join(', ')}`);
      requireShape(scale, [outer, blocks], 'the scales');
      requireAxis(x, x.shape.length - 1);
      requireShape({ ...x, shape: x.shape.slice(-1) }, [blocks * size], 'a row of the left side');
      return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), outer] }];
    },
    emit: (emitter, node) => {
      const inputs = node.inputs.map((input) => emitter.name(input));
      const [outer, blocks] = node.inputs[1]!.shape as [number, number];
      const size = sizeOfBlock(node.inputs[1]!);
      const sizes = { K: blocks * size, N: outer, bits, block_size: size, accuracy_level: 4 };
      return [emitter.node('MatMulNBits', inputs, sizes, 'com.microsoft')];
    },
    vjp: nonDifferentiable(`a matrix in ${bits} bits is there to write texts with`),
  };
}

/** Checks the parts of a matrix (K, N) in 8 bits, and returns K and N. */
export function requireInt8(parts: readonly TensorType[]): readonly [inner: Dim, outer: Dim] {
  const [weight, transposed, inputScale, outputScale, inputOutliers, outputOutliers] = parts as [
    TensorType,
    TensorType,
    TensorType,
    TensorType,
    TensorType,
    TensorType,
  ];
  requireDType(['float32'], inputScale, outputScale);
  requireDType(['int8'], weight, transposed);
  requireDType(['int32'], inputOutliers, outputOutliers);
  requireRank(weight, 2, 'the matrix');
  const [inner, outer] = [weight.shape[0]!, weight.shape[1]!];
  requireShape(transposed, [outer, inner], 'the transposed matrix');
  requireShape(inputScale, [inner], 'the scales of the inputs');
  requireShape(outputScale, [outer], 'the scales of the outputs');
  requireRank(inputOutliers, 1, 'the outliers of the inputs');
  requireRank(outputOutliers, 1, 'the outliers of the outputs');
  return [inner, outer];
}
