import type { TensorType, Value } from '../graph/graph.js';
import { nf4Matmul } from './build.js';
import { arity, requireAxis, requireDType, requireShape } from './infer.js';
import type { Emitter, OpAttributes, OpRecords } from './record.js';

/** Entries that share a scale. */
export const NF4_BLOCK = 64;

/** `quant_type` of the runtime's MatMulBnb4. */
const NF4 = 1;

/**
 * What the 16 codes stand for: quantiles of a normal distribution scaled to [-1, 1], with an exact zero
 * (https://arxiv.org/abs/2305.14314, appendix E).
 */
export const NF4_VALUES: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];

/** The values of the two codes in each byte, (256, 2). */
const PAIRS = Array.from({ length: 256 }, (_, byte) => [NF4_VALUES[byte >> 4]!, NF4_VALUES[byte & 15]!]).flat();

/** Devices for which the runtime has a product with such a matrix. */
const HAS_PRODUCT = new Set(['cpu', 'webgpu']);

const frozen = (): never => {
  throw new Error('a weight in NF4 is frozen: it has no gradient, keep it in float32 to train it');
};

/**
 * Products with a frozen matrix W (N, K) that is kept as bitsandbytes keeps it: W[i] = value(code i) · absmax[i/64], i
 * row-major. One copy of the codes serves both directions and every graph: the matrix is widened in each product and
 * let go, so a step holds one matrix in float32 at a time (QLoRA: Dettmers et al., 2023,
 * https://arxiv.org/abs/2305.14314).
 *
 * Inputs: x (…, K), or (…, N) for the adjoint; codes uint8 (N·K/2), the first of two in the high four bits; absmax
 * (N·K/64).
 */
export const nf4: OpRecords<'nf4Matmul'> = {
  // y = x · Wᵀ; adjoint: y = x · W
  nf4Matmul: {
    shared: [1, 2],
    infer: (inputs, { rows, columns, adjoint }) => {
      arity(inputs, 3);
      const [x, codes, absmax] = inputs as [TensorType, TensorType, TensorType];
      requireDType(['float32'], x, absmax);
      requireDType(['uint8'], codes);
      const entries = rows * columns;
      if (entries % NF4_BLOCK !== 0) {
        throw new RangeError(`the matrix (${rows}, ${columns}) is no whole number of blocks of ${NF4_BLOCK}`);
      }
      requireShape(codes, [entries / 2], 'the codes');
      requireShape(absmax, [entries / NF4_BLOCK], 'the scales');
      requireAxis(x, x.shape.length - 1);
      const [inner, outer] = adjoint ? [rows, columns] : [columns, rows];
      requireShape({ ...x, shape: x.shape.slice(-1) }, [inner], 'a row of the left side');
      return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), outer] }];
    },
    emit: (emitter, node, attributes) => {
      const [x, codes, absmax] = node.inputs.map((input) => emitter.name(input)) as [string, string, string];
      const { rows, columns, adjoint } = attributes;
      if (!adjoint && HAS_PRODUCT.has(emitter.device)) {
        const sizes = { K: columns, N: rows, block_size: NF4_BLOCK, quant_type: NF4 };
        return [emitter.node('MatMulBnb4', [x, codes, absmax], sizes, 'com.microsoft')];
      }
      const matrix = widened(emitter, { x, codes, absmax }, attributes);
      const right = adjoint ? matrix : emitter.node('Transpose', [matrix], { perm: [1, 0] });
      return [emitter.node('MatMul', [x, right])];
    },
    // dx = dy · W: the same product in the other direction
    vjp: ({ grad, inputs, attributes: { rows, columns, adjoint } }) => {
      const [, codes, absmax] = inputs as [Value, Value, Value];
      return [() => nf4Matmul(grad, { rows, columns, codes, absmax }, !adjoint), frozen, frozen];
    },
  },
};

/** The matrix (N, K) in float32. */
function widened(
  emitter: Emitter,
  { x, codes, absmax }: { readonly x: string; readonly codes: string; readonly absmax: string },
  { rows, columns }: OpAttributes['nf4Matmul'],
): string {
  const count = rows * columns;
  const whole = (...sizes: number[]): string => emitter.constant('int64', [sizes.length], sizes);
  const own = emitter.device === 'cpu' ? notBefore(emitter, x, codes, count / 2) : codes;
  const indices = emitter.node('Cast', [own], { to: 6 });
  const values = emitter.node('Gather', [emitter.constant('float32', [256, 2], PAIRS), indices], { axis: 0 });
  const blocks = emitter.node('Reshape', [values, whole(count / NF4_BLOCK, NF4_BLOCK)]);
  const scales = emitter.node('Reshape', [absmax, whole(count / NF4_BLOCK, 1)]);
  return emitter.node('Reshape', [emitter.node('Mul', [blocks, scales]), whole(rows, columns)]);
}

/**
 * A vector in its own memory that is not there before x is: its only dimension, −1, is computed from the shape of x. The
 * runtime may run what depends on feeds alone at any time, and would merge what is alike; either would keep matrices in
 * float32 for longer than their product.
 */
function notBefore(emitter: Emitter, x: string, bytes: string, size: number): string {
  const first = emitter.node('Shape', [x], { start: 0, end: 1 });
  const target = emitter.node('Min', [first, emitter.constant('int64', [1], [-1])]);
  return emitter.typed(emitter.node('Reshape', [bytes, target]), { dtype: 'uint8', shape: [size] });
}
