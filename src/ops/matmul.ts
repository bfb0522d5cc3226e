import { formatShape, type Dim } from '../graph/dim.js';
import type { TensorType, Value } from '../graph/graph.js';
import { flattenRows, matmul as product, reshape, sumTo } from './build.js';
import {
  arity,
  broadcastShapes,
  requireAxis,
  requireFloat,
  requireRank,
  requireSameDim,
  requireSameDType,
} from './infer.js';
import type { Emitter, OpRecords } from './record.js';

/** The two matrix axes of an operand, after its transposition. */
function matrixAxes(operand: TensorType, transposed: boolean): [Dim, Dim] {
  const [rows, columns] = [operand.shape.at(-2), operand.shape.at(-1)];
  if (rows === undefined || columns === undefined) {
    throw new RangeError(`needs operands with 2 axes or more, got ${formatShape(operand.shape)}`);
  }
  return transposed ? [columns, rows] : [rows, columns];
}

function swapLastTwo(emitter: Emitter, operand: Value): string {
  const rank = operand.shape.length;
  const perm = Array.from({ length: rank }, (_, axis) => (axis < rank - 2 ? axis : 2 * rank - 3 - axis));
  return emitter.node('Transpose', [emitter.name(operand)], { perm });
}

/** d/dB of A·B where B is one matrix for every leading index of A: rows of all of them in one product. */
function sharedMatrixGradient(a: Value, grad: Value, transA: boolean, transB: boolean): Value | undefined {
  if (transA || a.shape.length === 2) return undefined;
  const [rows, gradRows] = [flattenRows(a), flattenRows(grad)];
  return transB ? product(gradRows, rows, { transA: true }) : product(rows, gradRows, { transA: true });
}

export const matmul: OpRecords<'matmul'> = {
  // C (…, M, N) = A (…, M, K) · B (…, K, N); of matrices alone also + D (M, N), added where the product is summed up
  matmul: {
    infer: (inputs, { transA, transB }) => {
      if (inputs.length !== 3) arity(inputs, 2);
      const [a, b, addend] = inputs as [TensorType, TensorType, TensorType | undefined];
      requireFloat(a, b);
      const [m, k] = matrixAxes(a, transA);
      const [kB, n] = matrixAxes(b, transB);
      requireSameDim(k, kB, 'the inner dimensions');
      if (addend !== undefined) {
        requireSameDType(a, b, addend);
        for (const operand of [a, b, addend]) requireRank(operand, 2, 'an operand of a sum');
        requireSameDim(m, requireAxis(addend, 0), 'the rows of the product and the addend');
        requireSameDim(n, requireAxis(addend, 1), 'the columns of the product and the addend');
      }
      const leading = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
      return [{ dtype: requireSameDType(a, b), shape: [...leading, m, n] }];
    },
    emit: (emitter, node, { transA, transB }) => {
      const [a, b, addend] = node.inputs as [Value, Value, Value | undefined];
      const attributes = { transA: transA ? 1 : 0, transB: transB ? 1 : 0 };
      if (addend !== undefined) {
        return [emitter.node('Gemm', [emitter.name(a), emitter.name(b), emitter.name(addend)], attributes)];
      }
      if ((transA || transB) && emitter.device === 'cpu') {
        return [emitter.node('FusedMatMul', [emitter.name(a), emitter.name(b)], attributes, 'com.microsoft')];
      }
      const left = transA ? swapLastTwo(emitter, a) : emitter.name(a);
      const right = transB ? swapLastTwo(emitter, b) : emitter.name(b);
      return [emitter.node('MatMul', [left, right])];
    },
    // dA = dC·Bᵀ, dB = Aᵀ·dC, each transposed once more where the operand was; dD = dC
    vjp: ({ grad, inputs, attributes: { transA, transB } }) => {
      const [a, b] = [inputs[0]!, inputs[1]!];
      return [
        () => {
          const da = transA
            ? product(b, grad, { transA: transB, transB: true })
            : product(grad, b, { transB: !transB });
          return sumTo(da, a.shape);
        },
        () => {
          const shared = b.shape.length === 2 ? sharedMatrixGradient(a, grad, transA, transB) : undefined;
          if (shared !== undefined) return reshape(shared, b.shape);
          const db = transB
            ? product(grad, a, { transA: true, transB: transA })
            : product(a, grad, { transA: !transA });
          return sumTo(db, b.shape);
        },
        ...(inputs.length === 3 ? [() => grad] : []),
      ];
    },
  },
};
