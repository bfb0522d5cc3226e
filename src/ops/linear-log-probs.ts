import type { Dim } from '../graph/dim.js';
import type { Node, TensorType, Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import { mul, reshape } from './build.js';
import {
  arity,
  requireAxis,
  requireDType,
  requireFloat,
  requireRank,
  requireSameDType,
  requireShape,
} from './infer.js';
import { logSoftmaxOf } from './normalization.js';
import { emittedMatrix, int8Product, productOfRows, requireInt8, rowSteps } from './quantized.js';
import type { Emitter, OpAttributes, OpRecords, ScanValue } from './record.js';
import { streamedAdjoint, streamedProduct } from './streamed.js';

/** Largest unsigned 8-bit integer. */
const LEVELS = 255;

/** Patterns of the dither; a row's goes by its id, so that it does not depend on where in a batch the row stands. */
const PATTERNS = 8;

const frozen = (): never => {
  throw new Error('the head is frozen in linearLogProbs: compose matmul and tokenLogProbs to train it');
};

/** The products of a head: logits of rows (n, H) → (n, V), and probabilities (n, V) of rows with ids (n) back → (n, H). */
interface Head {
  logits(emitter: Emitter, rows: string): string;
  back(emitter: Emitter, probabilities: string, ids: string): string;
}

/**
 * The log-probability of one token a row under softmax(h·Wᵀ), forward and backward in one pass over chunks of rows: the
 * (N, V) logits never exist together, and what the gradient needs of them, the Jacobian ∂lp/∂h = W_id − p·W of shape
 * (N, H), is computed while they do ("Liger", Hsu et al., 2024, https://arxiv.org/abs/2410.10989; "Cut your losses",
 * Wijmans et al., 2024, https://arxiv.org/abs/2411.09009). The entropy falls out: −Σ p log p = h·(∂lp/∂h) − lp.
 *
 * Inputs: h (N, H), ids int32 (N), W_id (N, H), and the head's matrix. Outputs: lp (N), ∂lp/∂h (N, H), entropy (N),
 * 1 where the id is the likeliest (N).
 */
export const linearLogProbs: OpRecords<'linearLogProbs'> = {
  linearLogProbs: {
    infer: (inputs, { form, chunk }) => {
      arity(inputs, form === 'int8' ? 9 : 4);
      const [hidden, ids, rows, matrix] = inputs as [TensorType, TensorType, TensorType, TensorType];
      requireFloat(hidden);
      requireRank(hidden, 2, 'the hidden states');
      const [count, width] = [hidden.shape[0]!, hidden.shape[1]!];
      requireDType(['int32'], ids);
      requireShape(ids, [count], 'the ids');
      requireSameDType(hidden, rows);
      requireShape(rows, [count, width], 'the rows of the ids');
      if (form === 'int8') requireShape({ ...hidden, shape: [requireInt8(inputs.slice(3))[0]] }, [width], 'the head');
      else requireShape(matrix, [requireAxis(matrix, 0), width], 'the head');
      if (!Number.isInteger(chunk) || chunk < 1) throw new RangeError(`a chunk of ${chunk} rows is none`);
      const each = { dtype: hidden.dtype, shape: [count] };
      return [each, { dtype: hidden.dtype, shape: [count, width] }, each, each];
    },
    emit: (emitter, node, attributes) => {
      const [hidden, ids, rows] = node.inputs as [Value, Value, Value];
      const [count, width] = hidden.shape as [Dim, Dim];
      const head = headOf(emitter, node, attributes);
      const { dtype } = hidden;
      const wanted = node.outputs.map((output) => emitter.reads(output));
      if (emitter.device !== 'cpu') {
        // A loop would run on the CPU, and each of its rounds wait for the device: all rows at once.
        const names = [hidden, ids, rows].map((value) => emitter.name(value)) as [string, string, string];
        const [h, chosen, targets] = names;
        return scores(emitter, head, { h, chosen, targets, dtype, wanted });
      }
      const chunks = chunked(emitter, count, attributes.chunk);
      const elements: ScanValue[] = [
        { name: chunks.split(hidden, [width]), dtype, shape: ['chunk', width] },
        { name: chunks.split(ids, []), dtype: 'int32', shape: ['chunk'] },
        { name: chunks.split(rows, [width]), dtype, shape: ['chunk', width] },
      ];
      const types: TensorType[] = node.outputs.map(({ shape }) => ({ dtype, shape: ['chunk', ...shape.slice(1)] }));
      const stacked = emitter.scan(elements, ([h, chosen, targets]) => {
        const results = scores(emitter, head, { h: h!, chosen: chosen!, targets: targets!, dtype, wanted });
        return results.flatMap((name, i) => (wanted[i]! ? [{ name, ...types[i]! }] : []));
      });
      return node.outputs.map(({ shape }, i) => (wanted[i]! ? chunks.join(stacked.shift()!, shape.slice(1)) : ''));
    },
    // dh = ∂lp/∂h · dlp
    vjp: ({ grad, inputs, outputs }) => {
      const perRow = (): Value => mul(outputs[1]!, reshape(grad, [grad.shape[0]!, 1]));
      return [perRow, null, null, ...inputs.slice(3).map(() => frozen)];
    },
  },
};

interface Chunk {
  readonly h: string;
  readonly chosen: string;
  readonly targets: string;
  readonly dtype: DType;
  readonly wanted: readonly boolean[];
}

/** What comes out for a chunk of rows; an empty name for what is not wanted. */
function scores(emitter: Emitter, head: Head, { h, chosen, targets, dtype, wanted }: Chunk): string[] {
  const axis = emitter.constant('int64', [1], [1]);
  const column = emitter.node('Unsqueeze', [chosen, axis]);
  const logProbs = logSoftmaxOf(emitter, head.logits(emitter, h));
  const lp = emitter.node('Squeeze', [emitter.node('GatherElements', [logProbs, column], { axis: 1 }), axis]);
  const sumLast = (x: string): string => emitter.node('ReduceSum', [x, axis], { keepdims: 0 });
  let [jacobian, entropy, correct] = ['', '', ''];
  if (wanted[3] === true) {
    const best = emitter.node('ReduceMax', [logProbs, axis], { keepdims: 0 });
    correct = emitter.node('Cast', [emitter.node('Equal', [lp, best])], { to: dtype === 'float64' ? 11 : 1 });
  }
  if (wanted[1] === true) {
    jacobian = emitter.node('Sub', [targets, head.back(emitter, emitter.node('Exp', [logProbs]), chosen)]);
    if (wanted[2] === true) entropy = emitter.node('Sub', [sumLast(emitter.node('Mul', [h, jacobian])), lp]);
  } else if (wanted[2] === true) {
    const expected = sumLast(emitter.node('Mul', [emitter.node('Exp', [logProbs]), logProbs]));
    entropy = emitter.node('Neg', [expected]);
  }
  return [lp, jacobian, entropy, correct];
}

function headOf(emitter: Emitter, node: Node, { form }: OpAttributes['linearLogProbs']): Head {
  const parts = node.inputs.slice(3);
  if (form === 'streamed') {
    return {
      logits: (to, rows) => streamedProduct(to, rows, parts[0]!),
      back: (to, probabilities) => streamedAdjoint(to, probabilities, parts[0]!),
    };
  }
  if (form === 'float') {
    const weight = emitter.name(parts[0]!);
    if (emitter.device === 'cpu') {
      const attributes = { transA: 0, transB: 1 };
      return {
        logits: (to, rows) => to.node('FusedMatMul', [rows, weight], attributes, 'com.microsoft'),
        back: (to, probabilities) => to.node('MatMul', [probabilities, weight]),
      };
    }
    const turned = emitter.node('Transpose', [weight], { perm: [1, 0] });
    return {
      logits: (to, rows) => to.node('MatMul', [rows, turned]),
      back: (to, probabilities) => to.node('MatMul', [probabilities, weight]),
    };
  }
  const matrix = emittedMatrix(emitter, parts, false);
  const adjoint = emittedMatrix(emitter, parts, true);
  if (emitter.device !== 'cpu') {
    return {
      logits: (to, rows) => int8Product(to, rows, matrix),
      back: (to, probabilities) => int8Product(to, probabilities, adjoint),
    };
  }
  const dither = ditherOf(emitter, node.inputs[3]!.shape[1]!);
  return {
    logits: (to, rows) => int8Product(to, rows, matrix),
    // Rounded to the nearest, all of a distribution's tail would be lost: of what lies below half a step a share
    // as large as its part of a step is rounded up instead.
    back: (to, probabilities, ids) => {
      const scaled = to.node('Mul', [probabilities, adjoint.inputScale]);
      const step = rowSteps(to, scaled, LEVELS);
      const dithered = to.node('Gemm', [patternOf(to, step, ids), dither, scaled]);
      return productOfRows(to, dithered, { step, zero: 0, weight: adjoint.weight, outputScale: adjoint.outputScale });
    },
  };
}

/**
 * Offsets in steps of rounding, (PATTERNS, V) in [−½, ½): multiples of the golden ratio modulo 1, which spread evenly over
 * any stretch of neighbouring ids, each pattern shifted against the others.
 */
function ditherOf(emitter: Emitter, vocabulary: Dim): string {
  const double = (values: readonly number[], shape: readonly number[] = []): string =>
    emitter.constant('float64', shape, values);
  const scalarShape = emitter.constant('int64', [0], []);
  const end = emitter.node('Cast', [emitter.node('Reshape', [emitter.dims([vocabulary]), scalarShape])], { to: 11 });
  const ids = emitter.node('Range', [double([0]), end, double([1])]);
  const shifts = Array.from({ length: PATTERNS }, (_, i) => (i + 0.5) / PATTERNS);
  const spread = emitter.node('Add', [
    emitter.node('Mul', [ids, double([(Math.sqrt(5) - 1) / 2])]),
    double(shifts, [PATTERNS, 1]),
  ]);
  const fraction = emitter.node('Sub', [spread, emitter.node('Floor', [spread])]);
  return emitter.node('Cast', [emitter.node('Sub', [fraction, double([0.5])])], { to: 1 });
}

/** step (n, 1), ids int32 (n) → (n, PATTERNS): each row's step in the column of its pattern, else 0. */
function patternOf(emitter: Emitter, step: string, ids: string): string {
  const pattern = emitter.node('Mod', [ids, emitter.constant('int32', [], [PATTERNS])]);
  const columns = emitter.constant('int32', [PATTERNS], [...Array(PATTERNS).keys()]);
  const column = emitter.node('Unsqueeze', [pattern, emitter.constant('int64', [1], [1])]);
  return emitter.node('Where', [emitter.node('Equal', [column, columns]), step, emitter.constant('float32', [], [0])]);
}

/** N rows as chunks of equal size, the last one filled up with zeros; and back. */
function chunked(emitter: Emitter, count: Dim, largest: number) {
  const integer = (value: number): string => emitter.constant('int64', [1], [value]);
  const ceilDiv = (a: string, b: string): string =>
    emitter.node('Div', [emitter.node('Add', [a, emitter.node('Sub', [b, integer(1)])]), b]);
  const rows = emitter.dims([count]);
  const chunks = emitter.node('Max', [ceilDiv(rows, integer(largest)), integer(1)]);
  const size = ceilDiv(rows, chunks);
  const missing = emitter.node('Sub', [emitter.node('Mul', [chunks, size]), rows]);
  const shape = (...dims: string[]): string =>
    dims.length === 1 ? dims[0]! : emitter.node('Concat', dims, { axis: 0 });
  const rest = (dims: readonly Dim[]): string[] => dims.map((dim) => emitter.dims([dim]));
  return {
    split: (value: Value, dims: readonly Dim[]): string => {
      const zero = emitter.constant(value.dtype, [], [0]);
      const filling = emitter.node('Expand', [zero, shape(missing, ...rest(dims))]);
      const filled = emitter.node('Concat', [emitter.name(value), filling], { axis: 0 });
      return emitter.node('Reshape', [filled, shape(chunks, size, ...rest(dims))]);
    },
    join: (stacked: string, dims: readonly Dim[]): string => {
      const flat = emitter.node('Reshape', [stacked, shape(integer(-1), ...rest(dims))]);
      return emitter.node('Slice', [flat, integer(0), rows, integer(0)]);
    },
  };
}
