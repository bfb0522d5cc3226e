import type { Dim } from '../graph/dim.js';
import type { TensorType, Value } from '../graph/graph.js';
import { PIECE, streamedMatmul } from './build.js';
import { arity, requireAxis, requireFloat, requireRank, requireSameDim, requireSameDType } from './infer.js';
import { onnxDType } from './logic.js';
import type { Emitter, OpRecords } from './record.js';

const frozen = (): never => {
  throw new Error('a streamed matrix is frozen: compose matmul to train it');
};

/**
 * Products with a frozen matrix W (N, K) as its file holds it: rows are read from the mapped file some at a time, widened
 * to float32 and let go. Nothing is packed or widened beforehand, so that the matrix costs no memory but the file's pages;
 * in return it is widened in every product.
 */
export const streamed: OpRecords<'streamedMatmul'> = {
  // y = x · Wᵀ; adjoint: y = x · W
  streamedMatmul: {
    infer: (inputs, { adjoint }) => {
      arity(inputs, 2);
      const [x, matrix] = inputs as [TensorType, TensorType];
      requireFloat(x, matrix);
      requireRank(matrix, 2, 'the matrix');
      const [outer, inner] = adjoint ? [matrix.shape[1]!, matrix.shape[0]!] : [matrix.shape[0]!, matrix.shape[1]!];
      requireAxis(x, x.shape.length - 1);
      requireSameDim(x.shape.at(-1)!, inner, 'the inner dimensions');
      return [{ dtype: requireSameDType(x, matrix), shape: [...x.shape.slice(0, -1), outer] }];
    },
    emit: (emitter, node, { adjoint, piece }) => {
      const [x, matrix] = node.inputs as [Value, Value];
      return [(adjoint ? streamedAdjoint : streamedProduct)(emitter, emitter.name(x), matrix, piece)];
    },
    // dx = dy · W: the same product in the other direction
    vjp: ({ grad, inputs, attributes: { adjoint, piece } }) => [
      () => streamedMatmul(grad, inputs[1]!, { adjoint: !adjoint, piece }),
      frozen,
    ],
  },
};

/** Writes x (…, K) · Wᵀ. */
export function streamedProduct(emitter: Emitter, x: string, matrix: Value, piece = PIECE): string {
  if (emitter.device !== 'cpu') {
    return emitter.node('MatMul', [x, emitter.node('Transpose', [emitter.name(matrix)], { perm: [1, 0] })]);
  }
  const attributes = { transA: 0, transB: 1 };
  const parts = piecesOf(emitter, x, matrix, piece).map(({ rows }) =>
    emitter.node('FusedMatMul', [x, rows()], attributes, 'com.microsoft'),
  );
  return parts.length === 1 ? parts[0]! : emitter.node('Concat', parts, { axis: -1 });
}

/** Writes x (…, N) · W. */
export function streamedAdjoint(emitter: Emitter, x: string, matrix: Value, piece = PIECE): string {
  if (emitter.device !== 'cpu') return emitter.node('MatMul', [x, emitter.name(matrix)]);
  const pieces = piecesOf(emitter, x, matrix, piece);
  if (pieces.length === 1) return emitter.node('MatMul', [x, pieces[0]!.rows()]);
  const last = emitter.constant('int64', [1], [-1]);
  return pieces
    .map(({ start, end, rows }) => emitter.node('MatMul', [emitter.node('Slice', [x, start, end, last]), rows()]))
    .reduce((sum, part) => emitter.node('Add', [sum, part]));
}

interface Piece {
  /** Its first row, and the one after its last, as int64 (1). */
  readonly start: string;
  readonly end: string;
  /** Writes its rows, widened. */
  readonly rows: () => string;
}

/**
 * Runs of rows of a matrix. Where one begins is computed from the shape of x: what does not depend on it the runtime
 * would widen when it loads the graph, or once for all products.
 */
function piecesOf(emitter: Emitter, x: string, matrix: Value, piece: number): Piece[] {
  const [outer, inner] = matrix.shape as [Dim, Dim];
  const stored = emitter.stored(matrix);
  const integer = (value: number): string => emitter.constant('int64', [1], [value]);
  const zero = emitter.node('Min', [emitter.node('Shape', [x], { start: 0, end: 1 }), integer(0)]);
  const fixed = typeof outer === 'number' && typeof inner === 'number';
  const count = fixed ? Math.max(1, Math.ceil((outer * inner) / piece)) : 1;
  const bounds = fixed ? Array.from({ length: count + 1 }, (_, i) => Math.floor((i * outer) / count)) : [];
  return Array.from({ length: count }, (_, i) => {
    const start = emitter.node('Add', [zero, integer(bounds[i] ?? 0)]);
    const end = fixed ? integer(bounds[i + 1]!) : emitter.dims([outer]);
    const rows = (): string => {
      const source = stored ?? emitter.name(matrix);
      const taken = emitter.node('Slice', [source, start, end, integer(0)]);
      return stored === undefined ? taken : emitter.node('Cast', [taken], { to: onnxDType[matrix.dtype] });
    };
    return { start, end, rows };
  });
}
