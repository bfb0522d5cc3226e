import { formatShape, sameShape, sizeOf, type Dim } from '../graph/dim.js';
import type { Node, TensorType, Value } from '../graph/graph.js';
import { add, exp, logSoftmax, mul, neg, reshape, rotary as rotate, slice, sub, sumTo } from './build.js';
import {
  arity,
  broadcastShapes,
  requireAxis,
  requireDType,
  requireFloat,
  requireRank,
  requireShape,
  requireSameDim,
  requireSameDType,
} from './infer.js';
import { logSoftmaxOf } from './normalization.js';
import { nonDifferentiable, type Emitter, type OpRecords } from './record.js';

function inferRowsAndIds(logits: TensorType, ids: TensorType): void {
  requireFloat(logits);
  requireRank(logits, 2, 'the logits');
  requireDType(['int32'], ids);
  requireRank(ids, 1, 'the ids');
  requireSameDim(requireAxis(logits, 0), requireAxis(ids, 0), 'the numbers of rows and ids');
}

const column = (emitter: Emitter, name: string): string =>
  emitter.node('Unsqueeze', [name, emitter.constant('int64', [1], [1])]);

/** The two halves of the last axis, whose length must be even. */
function halves(x: Value): [Value, Value] {
  const size = x.shape.at(-1) as number;
  return [slice(x, -1, 0, size / 2), slice(x, -1, size / 2, size)];
}

/**
 * The processor's kernel for heads (…, H, D) that share the angles (…, 1, D/2) of their token, in float32; undefined for
 * anything else.
 */
function rotatedHeads(emitter: Emitter, { inputs, outputs }: Node): string | undefined {
  const [x, cosines, sines] = inputs as [Value, Value, Value];
  const [heads, size] = x.shape.slice(-2);
  if (emitter.device !== 'cpu' || x.dtype !== 'float32' || typeof heads !== 'number' || typeof size !== 'number') {
    return undefined;
  }
  const tokens = x.shape.slice(0, -2);
  if (tokens.length === 0 || !sameShape(cosines.shape, [...tokens, 1, size / 2])) return undefined;
  const count = sizeOf(tokens);
  const shaped = (name: string, shape: readonly Dim[]): string =>
    emitter.typed(emitter.node('Reshape', [name, emitter.dims(shape)]), { dtype: 'float32', shape });
  const angles = (value: Value): string =>
    emitter.once(`angles ${emitter.name(value)}`, () => shaped(emitter.name(value), [count, size / 2]));
  // The angles are those of the tokens in their order.
  const rows = emitter.once(`numbers of tokens ${count}`, () => {
    const scalar = emitter.node('Reshape', [emitter.dims([count]), emitter.constant('int64', [0], [])]);
    const numbers = [emitter.constant('int64', [], [0]), scalar, emitter.constant('int64', [], [1])];
    return emitter.node('Unsqueeze', [emitter.node('Range', numbers), emitter.constant('int64', [1], [0])]);
  });
  const rotated = emitter.node(
    'RotaryEmbedding',
    [shaped(emitter.name(x), [1, count, heads * size]), rows, angles(cosines), angles(sines)],
    { num_heads: heads, rotary_embedding_dim: size },
    'com.microsoft',
  );
  return shaped(rotated, outputs[0]!.shape);
}

export const language: OpRecords<'tokenLogProbs' | 'tokenLogProbsGrad' | 'tokenEntropies' | 'rotary'> = {
  // lp_n = x_{n, id_n} − log Σ_v exp x_{n,v}
  tokenLogProbs: {
    infer: (inputs) => {
      arity(inputs, 2);
      inferRowsAndIds(inputs[0]!, inputs[1]!);
      return [{ dtype: inputs[0]!.dtype, shape: [inputs[0]!.shape[0]!] }];
    },
    emit: (emitter, node) => {
      const [logits, ids] = node.inputs.map((input) => emitter.name(input)) as [string, string];
      const chosen = [logSoftmaxOf(emitter, logits), column(emitter, ids)];
      const axis = emitter.constant('int64', [1], [1]);
      return [emitter.node('Squeeze', [emitter.node('GatherElements', chosen, { axis: 1 }), axis])];
    },
    // dx = (onehot(id) − softmax(x)) · dlp
    vjp: ({ grad, inputs }) => [() => grad.graph.add('tokenLogProbsGrad', [inputs[0]!, inputs[1]!, grad])[0]!, null],
  },
  tokenLogProbsGrad: {
    infer: (inputs) => {
      arity(inputs, 3);
      inferRowsAndIds(inputs[0]!, inputs[1]!);
      requireSameDType(inputs[0]!, inputs[2]!);
      requireShape(inputs[2]!, inputs[0]!.shape.slice(0, 1), 'the gradients');
      return [inputs[0]!];
    },
    emit: (emitter, node) => {
      const [logits, ids, grad] = node.inputs.map((input) => emitter.name(input)) as [string, string, string];
      const gradColumn = column(emitter, grad);
      // Not Softmax: the log-probabilities are there already, and the runtime merges nodes that compute the same.
      const probabilities = emitter.node('Exp', [logSoftmaxOf(emitter, logits)]);
      const spread = emitter.node('Mul', [probabilities, emitter.node('Neg', [gradColumn])]);
      return [
        emitter.node('ScatterElements', [spread, column(emitter, ids), gradColumn], { axis: 1, reduction: 'add' }),
      ];
    },
    vjp: nonDifferentiable('second derivatives of the log-probability are not needed'),
  },
  // H_n = −Σ_v p_{n,v} log p_{n,v}
  tokenEntropies: {
    infer: (inputs) => {
      arity(inputs, 1);
      requireFloat(inputs[0]!);
      requireRank(inputs[0]!, 2, 'the logits');
      return [{ dtype: inputs[0]!.dtype, shape: inputs[0]!.shape.slice(0, 1) }];
    },
    emit: (emitter, node) => {
      const logP = logSoftmaxOf(emitter, emitter.name(node.inputs[0]!));
      const terms = emitter.node('Mul', [emitter.node('Exp', [logP]), logP]);
      const total = emitter.node('ReduceSum', [terms, emitter.constant('int64', [1], [1])], { keepdims: 0 });
      return [emitter.node('Neg', [total])];
    },
    // dx = −p ⊙ (log p + H) · dH
    vjp: ({ grad, inputs, outputs }) => [
      () => {
        const logP = logSoftmax(inputs[0]!);
        const rows = [inputs[0]!.shape[0]!, 1];
        const slopes = mul(exp(logP), add(logP, reshape(outputs[0]!, rows)));
        return mul(slopes, neg(reshape(grad, rows)));
      },
    ],
  },
  rotary: {
    infer: (inputs) => {
      arity(inputs, 3);
      const [x, cosines, sines] = [inputs[0]!, inputs[1]!, inputs[2]!];
      requireFloat(x);
      const size = requireAxis(x, x.shape.length - 1);
      if (typeof size !== 'number' || size % 2 !== 0) throw new RangeError(`the last axis must be even, got ${size}`);
      requireSameDType(x, cosines, sines);
      const half = [...x.shape.slice(0, -1), size / 2];
      if (!sameShape(cosines.shape, sines.shape) || !sameShape(broadcastShapes(half, cosines.shape), half)) {
        throw new RangeError(
          `cosines ${formatShape(cosines.shape)} and sines ${formatShape(sines.shape)} do not fit ${formatShape(half)}`,
        );
      }
      return [x];
    },
    emit: (emitter, node) => {
      const fused = rotatedHeads(emitter, node);
      if (fused !== undefined) return [fused];
      const [x, cosines, sines] = node.inputs.map((input) => emitter.name(input)) as [string, string, string];
      const [first, second] = emitter.nodes(2, 'Split', [x], { axis: -1, num_outputs: 2 }) as [string, string];
      const times = (a: string, b: string): string => emitter.node('Mul', [a, b]);
      const low = emitter.node('Sub', [times(first, cosines), times(second, sines)]);
      const high = emitter.node('Add', [times(second, cosines), times(first, sines)]);
      return [emitter.node('Concat', [low, high], { axis: -1 })];
    },
    // A rotation's adjoint is the rotation by the opposite angle.
    vjp: ({ grad, inputs }) => {
      const [x, cosines, sines] = [inputs[0]!, inputs[1]!, inputs[2]!];
      return [
        () => rotate(grad, cosines, neg(sines)),
        () => {
          const [[x1, x2], [g1, g2]] = [halves(x), halves(grad)];
          return sumTo(add(mul(g1, x1), mul(g2, x2)), cosines.shape);
        },
        () => {
          const [[x1, x2], [g1, g2]] = [halves(x), halves(grad)];
          return sumTo(sub(mul(g2, x1), mul(g1, x2)), sines.shape);
        },
      ];
    },
  },
};
