import type { TensorType, Value } from '../graph/graph.js';
import { exp, flattenRows, mul, reduceMean, reduceSum, sub } from './build.js';
import { arity, requireAxis, requireFloat, requireRank, requireSameDim, requireSameDType } from './infer.js';
import type { Emitter, OpRecords } from './record.js';

function requireWeights(x: TensorType, ...weights: TensorType[]): void {
  requireFloat(x);
  requireSameDType(x, ...weights);
  for (const weight of weights) {
    requireRank(weight, 1, 'the weight');
    requireSameDim(requireAxis(x, x.shape.length - 1), requireAxis(weight, 0), 'the normalised axis and the weight');
  }
}

const inferLastAxis = (inputs: readonly TensorType[]): TensorType[] => {
  arity(inputs, 1);
  requireFloat(inputs[0]!);
  requireAxis(inputs[0]!, inputs[0]!.shape.length - 1);
  return [inputs[0]!];
};

/** x (…, D) → statistics (…, 1) */
const statistics = (x: TensorType): TensorType => ({ dtype: x.dtype, shape: [...x.shape.slice(0, -1), 1] });

/** Sum of (…, D) over all but the last axis: (D). */
const sumRows = (x: Value): Value => (x.shape.length === 1 ? x : reduceSum(flattenRows(x), 0));

/** The fused norms return their statistics on the CPU, and there in float32 alone. */
const hasFusedNorm = (emitter: Emitter, x: TensorType): boolean => emitter.device === 'cpu' && x.dtype === 'float32';

/** ONNX's mean over the last axis, for devices whose fused norm does not return its statistics. */
const meanLast = (emitter: Emitter, x: string): string =>
  emitter.node('ReduceMean', [x, emitter.constant('int64', [1], [-1])], { keepdims: 1 });

function inverseRoot(emitter: Emitter, variance: string, x: TensorType, epsilon: number): string {
  const shifted = emitter.node('Add', [variance, emitter.constant(x.dtype, [], [epsilon])]);
  return emitter.node('Reciprocal', [emitter.node('Sqrt', [shifted])]);
}

/** Writes log-probabilities over the last axis of an ONNX value. */
export function logSoftmaxOf(emitter: Emitter, x: string): string {
  if (emitter.device === 'cpu') return emitter.node('LogSoftmax', [x], { axis: -1 });
  const axis = emitter.constant('int64', [1], [-1]);
  const shifted = emitter.node('Sub', [x, emitter.node('ReduceMax', [x, axis], { keepdims: 1 })]);
  const total = emitter.node('ReduceSum', [emitter.node('Exp', [shifted]), axis], { keepdims: 1 });
  return emitter.node('Sub', [shifted, emitter.node('Log', [total])]);
}

export const normalization: OpRecords<'softmax' | 'logSoftmax' | 'rmsNorm' | 'layerNorm'> = {
  softmax: {
    infer: inferLastAxis,
    emit: (emitter, node) => [emitter.node('Softmax', [emitter.name(node.inputs[0]!)], { axis: -1 })],
    // dx = y ⊙ (dy − Σ dy ⊙ y)
    vjp: ({ grad, outputs }) => [
      () => {
        const y = outputs[0]!;
        return mul(y, sub(grad, reduceSum(mul(grad, y), -1, true)));
      },
    ],
  },
  logSoftmax: {
    infer: inferLastAxis,
    emit: (emitter, node) => [logSoftmaxOf(emitter, emitter.name(node.inputs[0]!))],
    // dx = dy − softmax(x) · Σ dy
    vjp: ({ grad, outputs }) => [() => sub(grad, mul(exp(outputs[0]!), reduceSum(grad, -1, true)))],
  },
  // Outputs: y (…, D) and 1/rms (…, 1), kept for the gradient.
  rmsNorm: {
    infer: (inputs) => {
      arity(inputs, 2);
      requireWeights(inputs[0]!, inputs[1]!);
      return [inputs[0]!, statistics(inputs[0]!)];
    },
    emit: (emitter, node, { epsilon }) => {
      const [x, weight] = [emitter.name(node.inputs[0]!), emitter.name(node.inputs[1]!)];
      if (hasFusedNorm(emitter, node.inputs[0]!)) {
        return emitter.nodes(2, 'SimplifiedLayerNormalization', [x, weight], {
          axis: -1,
          epsilon: { float: epsilon },
          stash_type: 1,
        });
      }
      const inverse = inverseRoot(emitter, meanLast(emitter, emitter.node('Mul', [x, x])), node.inputs[0]!, epsilon);
      return [emitter.node('Mul', [emitter.node('Mul', [x, inverse]), weight]), inverse];
    },
    // With x̂ = x·r, r = 1/rms: dx = r·(w⊙dy − x̂·mean(w⊙dy⊙x̂)), dw = Σ dy⊙x̂
    vjp: ({ grad, inputs, outputs }) => {
      const [x, weight, inverse] = [inputs[0]!, inputs[1]!, outputs[1]!];
      return [
        () => {
          const normalised = mul(x, inverse);
          const scaled = mul(grad, weight);
          return mul(inverse, sub(scaled, mul(normalised, reduceMean(mul(scaled, normalised), -1, true))));
        },
        () => sumRows(mul(grad, mul(x, inverse))),
      ];
    },
  },
  // Outputs: y (…, D), mean (…, 1), 1/std (…, 1).
  layerNorm: {
    infer: (inputs) => {
      arity(inputs, 3);
      requireWeights(inputs[0]!, inputs[1]!, inputs[2]!);
      return [inputs[0]!, statistics(inputs[0]!), statistics(inputs[0]!)];
    },
    emit: (emitter, node, { epsilon }) => {
      const [x, weight, bias] = node.inputs.map((input) => emitter.name(input)) as [string, string, string];
      if (hasFusedNorm(emitter, node.inputs[0]!)) {
        return emitter.nodes(3, 'LayerNormalization', [x, weight, bias], {
          axis: -1,
          epsilon: { float: epsilon },
          stash_type: 1,
        });
      }
      const mean = meanLast(emitter, x);
      const centred = emitter.node('Sub', [x, mean]);
      const inverse = inverseRoot(
        emitter,
        meanLast(emitter, emitter.node('Mul', [centred, centred])),
        node.inputs[0]!,
        epsilon,
      );
      const scaled = emitter.node('Mul', [emitter.node('Mul', [centred, inverse]), weight]);
      return [emitter.node('Add', [scaled, bias]), mean, inverse];
    },
    // With x̂ = (x − μ)·r: dx = r·(g − mean(g) − x̂·mean(g⊙x̂)) for g = w⊙dy, dw = Σ dy⊙x̂, db = Σ dy
    vjp: ({ grad, inputs, outputs }) => {
      const normalised = (): Value => mul(sub(inputs[0]!, outputs[1]!), outputs[2]!);
      return [
        () => {
          const xHat = normalised();
          const scaled = mul(grad, inputs[1]!);
          const centred = sub(scaled, reduceMean(scaled, -1, true));
          return mul(outputs[2]!, sub(centred, mul(xHat, reduceMean(mul(scaled, xHat), -1, true))));
        },
        () => sumRows(mul(grad, normalised())),
        () => sumRows(grad),
      ];
    },
  },
};
