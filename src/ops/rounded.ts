import type { TensorType, Value } from '../graph/graph.js';
import { flattenRows, matmul, reshape, roundedMatmul } from './build.js';
import { arity, requireAxis, requireDType, requireRank, requireShape } from './infer.js';
import { int8ProductOf, LEVELS, rowSteps, type EmittedMatrix } from './quantized.js';
import type { Emitter, OpRecords } from './record.js';

/**
 * Products with a matrix W (N, K) that learns: both sides are rounded to 8 bits where they are multiplied, W with a scale
 * for each output, x with one for each row, so that what a token computes does not depend on what it is batched with. The
 * gradient of x is the same product with the sides exchanged; that of W is a float32 product of what was not rounded
 * (straight through: Bengio et al., 2013, https://arxiv.org/abs/1308.3432). W itself keeps float32, so that steps far
 * smaller than a step of rounding add up.
 */
export const rounded: OpRecords<'roundedMatmul'> = {
  // y = (x / r → 8 bits) · (W / s → 8 bits)ᵀ ∘ s · r; adjoint: y = (x ∘ s / r → 8 bits) · (W / s → 8 bits) · r
  roundedMatmul: {
    infer: (inputs, { adjoint }) => {
      arity(inputs, 2);
      const [x, weight] = inputs as [TensorType, TensorType];
      requireDType(['float32'], x, weight);
      requireRank(weight, 2, 'the matrix');
      const [outer, inner] = [weight.shape[0]!, weight.shape[1]!];
      requireAxis(x, x.shape.length - 1);
      requireShape({ ...x, shape: x.shape.slice(-1) }, [adjoint ? outer : inner], 'a row of the left side');
      return [{ dtype: 'float32', shape: [...x.shape.slice(0, -1), adjoint ? inner : outer] }];
    },
    emit: (emitter, node, { adjoint }) => [
      int8ProductOf(emitter, node, roundedMatrix(emitter, node.inputs[1]!, adjoint)),
    ],
    vjp: ({ grad, inputs, attributes: { adjoint } }) => {
      const [x, weight] = inputs as [Value, Value];
      const rows = [flattenRows(grad), flattenRows(x)] as const;
      const [left, right] = adjoint ? [rows[1], rows[0]] : rows;
      return [
        () => roundedMatmul(grad, weight, !adjoint),
        () => reshape(matmul(left, right, { transA: true }), weight.shape),
      ];
    },
  },
};

/** W (N, K) rounded, for x · Wᵀ or for the adjoint g · W; both directions share its codes. */
function roundedMatrix(emitter: Emitter, weight: Value, adjoint: boolean): EmittedMatrix {
  const name = emitter.name(weight);
  const once = (what: string, make: () => string): string => emitter.once(`${what} of ${name}`, make);
  const scale = once('8-bit scales', () => {
    const steps = rowSteps(emitter, emitter.node('Abs', [name]), LEVELS);
    return emitter.node('Squeeze', [steps, emitter.constant('int64', [1], [1])]);
  });
  const codes = once('8-bit codes', () => {
    const zero = emitter.constant('int8', [], [0]);
    const zeros = emitter.node('Expand', [zero, emitter.node('Shape', [scale])]);
    return emitter.typed(emitter.node('QuantizeLinear', [name, scale, zeros], { axis: 0 }), {
      dtype: 'int8',
      shape: weight.shape,
    });
  });
  const ones = (size: number): string => emitter.constant('float32', [size], new Float32Array(size).fill(1));
  const inner = weight.shape[1] as number;
  if (adjoint) {
    return { weight: codes, rowScale: scale, inputScale: scale, outputScale: ones(inner), outliers: undefined };
  }
  const turned = once('transposed 8-bit codes', () => emitter.node('Transpose', [codes], { perm: [1, 0] }));
  return { weight: turned, rowScale: undefined, inputScale: ones(inner), outputScale: scale, outliers: undefined };
}
