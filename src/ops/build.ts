import { formatShape, sameShape, sizeOf, type Dim } from '../graph/dim.js';
import type { Graph, Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import type { OpAttributes, OpName } from './record.js';

/** Appends a node of a known op with the attributes that it takes. */
function apply<K extends OpName>(graph: Graph, op: K, inputs: readonly Value[], attributes: OpAttributes[K]): Value {
  return graph.add(op, inputs, attributes)[0]!;
}

type Operand = Value | number;

/** A number beside a value becomes a 0-d constant of the value's dtype. */
function operands(a: Operand, b: Operand): [Value, Value] {
  if (typeof a === 'number') {
    if (typeof b === 'number') throw new TypeError('an operation of two numbers needs no graph');
    return [scalar(b.graph, b.dtype, a), b];
  }
  return [a, typeof b === 'number' ? scalar(a.graph, a.dtype, b) : b];
}

const unary =
  (
    op:
      | 'stopGradient'
      | 'neg'
      | 'exp'
      | 'log'
      | 'sqrt'
      | 'reciprocal'
      | 'tanh'
      | 'sigmoid'
      | 'erf'
      | 'sin'
      | 'cos'
      | 'silu'
      | 'gelu'
      | 'not',
  ) =>
  (x: Value): Value =>
    apply(x.graph, op, [x], {});

const binary =
  (op: 'add' | 'sub' | 'mul' | 'div' | 'minimum' | 'maximum' | 'equal' | 'less' | 'and' | 'or') =>
  (a: Operand, b: Operand): Value => {
    const pair = operands(a, b);
    return apply(pair[0].graph, op, pair, {});
  };

export const stopGradient = unary('stopGradient');
export const neg = unary('neg');
export const exp = unary('exp');
/** Natural logarithm. */
export const log = unary('log');
export const sqrt = unary('sqrt');
export const reciprocal = unary('reciprocal');
export const tanh = unary('tanh');
export const sigmoid = unary('sigmoid');
export const erf = unary('erf');
export const sin = unary('sin');
export const cos = unary('cos');
/** x·σ(x). */
export const silu = unary('silu');
/** The exact GELU, x·Φ(x). */
export const gelu = unary('gelu');
export const not = unary('not');

/** Elementwise with broadcasting, as ONNX and NumPy do it. */
export const add = binary('add');
export const sub = binary('sub');
export const mul = binary('mul');
export const div = binary('div');
export const minimum = binary('minimum');
export const maximum = binary('maximum');
export const equal = binary('equal');
export const less = binary('less');
export const greater = (a: Operand, b: Operand): Value => less(b, a);
export const and = binary('and');
export const or = binary('or');

/** `condition ? a : b`, elementwise with broadcasting. */
export function where(condition: Value, a: Operand, b: Operand): Value {
  const like = typeof a !== 'number' ? a : typeof b !== 'number' ? b : undefined;
  if (like === undefined) throw new TypeError('where needs a value for its dtype');
  const pick = (operand: Operand): Value =>
    typeof operand === 'number' ? scalar(condition.graph, like.dtype, operand) : operand;
  return apply(condition.graph, 'where', [condition, pick(a), pick(b)], {});
}

export const cast = (x: Value, to: DType): Value => (x.dtype === to ? x : apply(x.graph, 'cast', [x], { to }));

export const constant = (graph: Graph, dtype: DType, shape: readonly number[], values: readonly number[]): Value =>
  apply(graph, 'constant', [], { dtype, shape, values });

export const scalar = (graph: Graph, dtype: DType, value: number): Value => constant(graph, dtype, [], [value]);

/** Matrix product over the last two axes, each operand transposed there on request; leading axes broadcast. */
export const matmul = (a: Value, b: Value, options: { transA?: boolean; transB?: boolean } = {}): Value =>
  apply(a.graph, 'matmul', [a, b], { transA: options.transA ?? false, transB: options.transB ?? false });

/** A frozen matrix in 8 bits, W = diag(inputScale) · weight · diag(outputScale): see the op's record. */
export interface Int8Matrix {
  /** int8 (K, N) */
  readonly weight: Value;
  /** The same transposed, int8 (N, K): what the gradient multiplies with. */
  readonly transposed: Value;
  /** float32 (K): 1 outside of `inputOutliers`. */
  readonly inputScale: Value;
  /** float32 (N) */
  readonly outputScale: Value;
  /** int32: of K, what is multiplied in float32 by x · W. */
  readonly inputOutliers: Value;
  /** int32: of N, what is multiplied in float32 by g · Wᵀ. */
  readonly outputOutliers: Value;
}

/** The parts of a matrix in 8 bits in the order in which ops take them. */
const partsOf = (matrix: Int8Matrix): Value[] => [
  matrix.weight,
  matrix.transposed,
  matrix.inputScale,
  matrix.outputScale,
  matrix.inputOutliers,
  matrix.outputOutliers,
];

/** x (…, K) · W (K, N) in 8-bit integers, each row of x with a scale of its own → (…, N); adjoint: x (…, N) · Wᵀ → (…, K). */
export const int8Matmul = (x: Value, matrix: Int8Matrix, adjoint = false): Value =>
  apply(x.graph, 'int8Matmul', [x, ...partsOf(matrix)], { adjoint });

/**
 * x (…, K) · Wᵀ of a float32 matrix (N, K), both rounded to 8 bits for the product → (…, N); adjoint: x (…, N) · W →
 * (…, K). See the op's record.
 */
export const roundedMatmul = (x: Value, weight: Value, adjoint = false): Value =>
  apply(x.graph, 'roundedMatmul', [x, weight], { adjoint });

/** A frozen matrix in blocks of 4 bits: see the op's record. */
export interface Int4Matrix {
  /** uint8 (N, K/block, block/2): two entries a byte, the first in the lower half. */
  readonly packed: Value;
  /** float32 (N, K/block) */
  readonly scale: Value;
}

/** x (…, K) · Wᵀ of a matrix (N, K) in 4 bits → (…, N). */
export const int4Matmul = (x: Value, { packed, scale }: Int4Matrix): Value =>
  apply(x.graph, 'int4Matmul', [x, packed, scale], {});

/** A frozen matrix W (N, K) of which a block of entries of a row shares a scale: W[n, k] = scale[n, k/block] · (byte − 128). */
export interface BytesMatrix {
  /** uint8 (N, K/block, block) */
  readonly packed: Value;
  /** float32 (N, K/block) */
  readonly scale: Value;
}

/** x (…, K) · Wᵀ → (…, N), to write texts with: a matrix in bytes has no gradient. */
export const bytesMatmul = (x: Value, { packed, scale }: BytesMatrix): Value =>
  apply(x.graph, 'bytesMatmul', [x, packed, scale], {});

/** A frozen matrix (rows, columns) in NF4: see the op's record. */
export interface Nf4Matrix {
  readonly rows: number;
  readonly columns: number;
  /** uint8 (rows·columns/2): two codes a byte, the first in the high half. */
  readonly codes: Value;
  /** float32 (rows·columns/64) */
  readonly absmax: Value;
}

/** x (…, columns) · Wᵀ of a matrix in NF4 → (…, rows); adjoint: x (…, rows) · W → (…, columns). */
export const nf4Matmul = (x: Value, { rows, columns, codes, absmax }: Nf4Matrix, adjoint = false): Value =>
  apply(x.graph, 'nf4Matmul', [x, codes, absmax], { rows, columns, adjoint });

/** Entries of a matrix that are widened at a time where nothing else is said: 64 MiB of float32. */
export const PIECE = 2 ** 24;

/**
 * x (…, K) · Wᵀ of a frozen matrix (N, K) that is read in pieces of so many entries → (…, N); adjoint: x (…, N) · W →
 * (…, K).
 */
export const streamedMatmul = (x: Value, matrix: Value, { adjoint = false, piece = PIECE } = {}): Value =>
  apply(x.graph, 'streamedMatmul', [x, matrix], { adjoint, piece });

type Axes = number | readonly number[] | undefined;

function reduce(op: 'reduceSum' | 'reduceMean' | 'reduceMax', x: Value, axes: Axes, keepDims: boolean): Value {
  const list = axes === undefined ? x.shape.map((_, axis) => axis) : typeof axes === 'number' ? [axes] : [...axes];
  const positive = list.map((axis) => (axis < 0 ? axis + x.shape.length : axis)).sort((a, b) => a - b);
  return positive.length === 0 ? x : apply(x.graph, op, [x], { axes: positive, keepDims });
}

/** Sum over the axes (all of them when none are given). */
export const reduceSum = (x: Value, axes?: Axes, keepDims = false): Value => reduce('reduceSum', x, axes, keepDims);
export const reduceMean = (x: Value, axes?: Axes, keepDims = false): Value => reduce('reduceMean', x, axes, keepDims);
export const reduceMax = (x: Value, axes?: Axes, keepDims = false): Value => reduce('reduceMax', x, axes, keepDims);

/** Running sum along an axis, from the end when `reverse`. */
export const cumulativeSum = (x: Value, axis: number, reverse = false): Value =>
  apply(x.graph, 'cumulativeSum', [x], { axis: axis < 0 ? axis + x.shape.length : axis, reverse });

/** Over the last axis. */
export const softmax = (x: Value): Value => apply(x.graph, 'softmax', [x], {});
export const logSoftmax = (x: Value): Value => apply(x.graph, 'logSoftmax', [x], {});

/** x / rms(x) · weight over the last axis (Zhang and Sennrich, 2019). */
export const rmsNorm = (x: Value, weight: Value, epsilon: number): Value =>
  apply(x.graph, 'rmsNorm', [x, weight], { epsilon });

/** (x − mean) / std · weight + bias over the last axis (Ba et al., 2016). */
export const layerNorm = (x: Value, weight: Value, bias: Value, epsilon: number): Value =>
  apply(x.graph, 'layerNorm', [x, weight, bias], { epsilon });

export const reshape = (x: Value, shape: readonly Dim[]): Value =>
  sameShape(x.shape, shape) ? x : apply(x.graph, 'reshape', [x], { shape });

export const transpose = (x: Value, permutation: readonly number[]): Value =>
  permutation.length === x.shape.length && permutation.every((from, to) => from === to)
    ? x
    : apply(x.graph, 'transpose', [x], { permutation });

export const broadcastTo = (x: Value, shape: readonly Dim[]): Value =>
  sameShape(x.shape, shape) ? x : apply(x.graph, 'broadcastTo', [x], { shape });

export function concat(values: readonly Value[], axis: number): Value {
  const first = values[0];
  if (first === undefined) throw new RangeError('concat needs at least one value');
  return values.length === 1
    ? first
    : apply(first.graph, 'concat', values, { axis: axis < 0 ? axis + first.shape.length : axis });
}

/** Elements `start` to `end` (exclusive) along an axis. */
export const slice = (x: Value, axis: number, start: Dim, end: Dim): Value =>
  apply(x.graph, 'slice', [x], { axis: axis < 0 ? axis + x.shape.length : axis, start, end });

/** table (V, …), indices int32 of any shape → (…indices, …rest of the table). */
export const gatherRows = (table: Value, indices: Value): Value =>
  apply(table.graph, 'gatherRows', [table, indices], {});

/**
 * Rows moved to other places, each to one: x (N, …) → (…from, …), where `from` int32 (of any shape) says which row of x
 * stands at each place, and `to` int32 (N) where in the flattened result each row of x is. What is −1 in one of the two is
 * there in it alone: a place without a row, which is zero, or a row without a place, whose gradient is.
 *
 * @param holes which of the two may hold −1
 */
export const rearrangeRows = (x: Value, { from, to, holes }: { from: Value; to: Value; holes: 'from' | 'to' }): Value =>
  apply(x.graph, 'rearrangeRows', [x, from, to], { holes });

/** updates (N, …), indices int32 (N) → (rows, …): each update added to the row that its index names. */
export const scatterAddRows = (updates: Value, indices: Value, rows: Dim): Value =>
  apply(updates.graph, 'scatterAddRows', [updates, indices], { rows });

/** x (…, K), indices int32 (…, M) with the same leading axes → (…, M), picked along the last axis. */
export const gatherElements = (x: Value, indices: Value): Value => apply(x.graph, 'gatherElements', [x, indices], {});

/** updates (…, M), indices int32 (…, M) → (…, size): each update added at its index of the last axis. */
export const scatterAddElements = (updates: Value, indices: Value, size: Dim): Value =>
  apply(updates.graph, 'scatterAddElements', [updates, indices], { size });

/** The `count` largest along the last axis: x (…, V) → values (…, count), largest first, and indices int32 (…, count). */
export function topK(x: Value, count: Dim): { values: Value; indices: Value } {
  const [values, indices] = x.graph.add('topK', [x], { count });
  return { values: values!, indices: indices! };
}

/** logits (N, V), ids int32 (N) → log-probability of each row's id, (N), in nats. */
export const tokenLogProbs = (logits: Value, ids: Value): Value =>
  apply(logits.graph, 'tokenLogProbs', [logits, ids], {});

/** logits (N, V) → entropy of each row's distribution, (N), in nats. */
export const tokenEntropies = (logits: Value): Value => apply(logits.graph, 'tokenEntropies', [logits], {});

/** Log-probabilities of chosen tokens, and what can be said of the distributions beside them, each (N). */
export interface TokenScores {
  /** Natural logarithms; differentiable with respect to the hidden states. */
  readonly logProbs: Value;
  /** In nats; no gradient. */
  readonly entropies: Value;
  /** 1 where the token is the likeliest, 0 elsewhere. */
  readonly correct: Value;
}

/**
 * Log-probabilities of tokens under a frozen output head, without logits of all rows at once: see the op's record.
 *
 * @param hidden (N, H)
 * @param ids int32 (N)
 * @param rows (N, H), the rows of the head's matrix that belong to the ids
 * @param head the matrix: (V, H) in a float dtype, also to be read piece by piece, or in 8 bits for a product with the
 *   hidden states
 * @param chunk rows whose logits are in memory at a time
 */
export function linearLogProbs(
  { hidden, ids, rows }: { hidden: Value; ids: Value; rows: Value },
  head: Value | Int8Matrix | { readonly streamed: Value },
  chunk: number,
): TokenScores {
  const matrix = 'streamed' in head ? [head.streamed] : 'node' in head ? [head] : partsOf(head);
  const form = 'streamed' in head ? 'streamed' : 'node' in head ? 'float' : 'int8';
  const attributes: OpAttributes['linearLogProbs'] = { form, chunk };
  const outputs = hidden.graph.add('linearLogProbs', [hidden, ids, rows, ...matrix], attributes);
  return { logProbs: outputs[0]!, entropies: outputs[2]!, correct: outputs[3]! };
}

/**
 * Rotary position embedding in the half-split form of Hugging Face (Su et al., 2021): x (…, D), cos and sin
 * (…, D/2), broadcast → [x₁·cos − x₂·sin, x₂·cos + x₁·sin].
 */
export const rotary = (x: Value, cosines: Value, sines: Value): Value =>
  apply(x.graph, 'rotary', [x, cosines, sines], {});

/** 0, 1, …, size−1 as int32. */
export const iota = (graph: Graph, size: Dim): Value => apply(graph, 'iota', [], { size });

/**
 * A mask of 0 (with probability `rate`) and 1/(1−rate), a pure function of the seed (uint32 scalar), the salt, and
 * the element's place: the same on recomputation and on resume.
 *
 * @param rows along `axis`, the batch's, an element's place is its row's id, int32 (size of the axis), and not where in
 *   the batch the row happens to stand; without it all axes are counted
 */
export const dropoutMask = (
  seed: Value,
  { shape, rows, ...drawn }: { shape: readonly Dim[]; rate: number; salt: number; dtype: DType; rows?: MaskRows },
): Value =>
  apply(seed.graph, 'dropoutMask', rows === undefined ? [seed] : [seed, rows.ids], {
    ...drawn,
    shape,
    rowAxis: rows?.axis,
  });

/** Which rows of an optimizer's batch stand along an axis. */
export interface MaskRows {
  /** int32 (size of the axis). */
  readonly ids: Value;
  readonly axis: number;
}

/** Sums a value down to a shape that broadcasts to it: the adjoint of broadcasting. */
export function sumTo(x: Value, shape: readonly Dim[]): Value {
  if (sameShape(x.shape, shape)) return x;
  const extra = x.shape.length - shape.length;
  if (extra < 0) throw new RangeError(`${formatShape(x.shape)} cannot be summed to ${formatShape(shape)}`);
  const axes = x.shape.flatMap((dim, axis) => (axis < extra || dim !== shape[axis - extra] ? [axis] : []));
  return reshape(reduceSum(x, axes, true), shape);
}

/** Merges leading axes: (…, D) → (N, D). */
export const flattenRows = (x: Value): Value => {
  const last = x.shape.at(-1);
  if (last === undefined) throw new RangeError('a 0-d value has no rows');
  return reshape(x, [sizeOf(x.shape.slice(0, -1)), last]);
};

/** Zeros of a shape. */
export const zerosOf = (graph: Graph, dtype: DType, shape: readonly Dim[]): Value =>
  broadcastTo(scalar(graph, dtype, 0), shape);

/** Zeros before and after what is along an axis. */
export const padAxis = (x: Value, axis: number, before: Dim, after: Dim): Value =>
  before === 0 && after === 0
    ? x
    : apply(x.graph, 'pad', [x], { axis: axis < 0 ? axis + x.shape.length : axis, before, after });
