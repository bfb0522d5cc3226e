import type { TensorType } from '../graph/graph.js';
import { add, div, erf, exp, less, mul, neg, cos, sin, sigmoid, sub, sumTo, where } from './build.js';
import { arity, broadcastShapes, requireFloat, requireNumber, requireSameDType } from './infer.js';
import type { NoAttributes, OpRecord, OpRecords, Vjp } from './record.js';
import { sinusoid } from './sinusoid.js';

function unary(opType: string, vjp: Vjp<NoAttributes>): OpRecord<NoAttributes> {
  return {
    infer: inferUnary,
    emit: (emitter, node) => [emitter.node(opType, [emitter.name(node.inputs[0]!)])],
    vjp,
  };
}

function inferUnary(inputs: readonly TensorType[]): TensorType[] {
  arity(inputs, 1);
  requireFloat(inputs[0]!);
  return [inputs[0]!];
}

/** Elementwise with broadcasting; each side's gradient is summed back over the axes that it was broadcast along. */
function binary(opType: string, vjp: Vjp<NoAttributes>): OpRecord<NoAttributes> {
  return {
    infer: (inputs) => {
      arity(inputs, 2);
      requireNumber(...inputs);
      return [{ dtype: requireSameDType(...inputs), shape: broadcastShapes(inputs[0]!.shape, inputs[1]!.shape) }];
    },
    emit: (emitter, node) => [
      emitter.node(
        opType,
        node.inputs.map((input) => emitter.name(input)),
      ),
    ],
    vjp: (context) =>
      vjp(context).map((thunk, side) => (thunk === null ? null : () => sumTo(thunk(), context.inputs[side]!.shape))),
  };
}

/** sin(x + quarters·π/2): the processor's own, elsewhere one that is as precise. */
function circular(opType: 'Sin' | 'Cos', quarters: 0 | 1, vjp: Vjp<NoAttributes>): OpRecord<NoAttributes> {
  return {
    infer: inferUnary,
    emit: (emitter, node) => {
      const x = emitter.name(node.inputs[0]!);
      const own = emitter.device === 'cpu' || node.inputs[0]!.dtype !== 'float32';
      return [own ? emitter.node(opType, [x]) : sinusoid(emitter, x, quarters)];
    },
    vjp,
  };
}

const SQRT_HALF = Math.SQRT1_2;
const TWO_OVER_SQRT_PI = 2 / Math.sqrt(Math.PI);
const ONE_OVER_SQRT_2PI = 1 / Math.sqrt(2 * Math.PI);

export const elementwise: OpRecords<
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
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'minimum'
  | 'maximum'
> = {
  // d(−x) = −dx
  neg: unary('Neg', ({ grad }) => [() => neg(grad)]),
  // d eˣ = eˣ dx
  exp: unary('Exp', ({ grad, outputs }) => [() => mul(grad, outputs[0]!)]),
  // d ln x = dx / x
  log: unary('Log', ({ grad, inputs }) => [() => div(grad, inputs[0]!)]),
  // d √x = dx / (2√x)
  sqrt: unary('Sqrt', ({ grad, outputs }) => [() => div(mul(grad, 0.5), outputs[0]!)]),
  // d x⁻¹ = −x⁻² dx
  reciprocal: unary('Reciprocal', ({ grad, outputs }) => [() => neg(mul(grad, mul(outputs[0]!, outputs[0]!)))]),
  // d tanh x = (1 − tanh² x) dx
  tanh: unary('Tanh', ({ grad, outputs }) => [() => mul(grad, sub(1, mul(outputs[0]!, outputs[0]!)))]),
  // d σ = σ(1 − σ) dx
  sigmoid: unary('Sigmoid', ({ grad, outputs }) => [() => mul(grad, mul(outputs[0]!, sub(1, outputs[0]!)))]),
  // d erf x = 2/√π · e^(−x²) dx
  erf: unary('Erf', ({ grad, inputs }) => [
    () => mul(grad, mul(exp(neg(mul(inputs[0]!, inputs[0]!))), TWO_OVER_SQRT_PI)),
  ]),
  sin: circular('Sin', 0, ({ grad, inputs }) => [() => mul(grad, cos(inputs[0]!))]),
  cos: circular('Cos', 1, ({ grad, inputs }) => [() => neg(mul(grad, sin(inputs[0]!)))]),
  silu: {
    infer: inferUnary,
    emit: (emitter, node) => {
      const x = emitter.name(node.inputs[0]!);
      const { dtype } = node.inputs[0]!;
      if (dtype === 'float64') {
        // x / (1 + e⁻ˣ): x·σ(x) would be fused into a kernel that exists in float32 alone.
        const power = emitter.node('Exp', [emitter.node('Neg', [x])]);
        return [emitter.node('Div', [x, emitter.node('Add', [power, emitter.constant(dtype, [], [1])])])];
      }
      if (emitter.device === 'cpu') return [emitter.node('QuickGelu', [x], { alpha: { float: 1 } }, 'com.microsoft')];
      return [emitter.node('Mul', [x, emitter.node('Sigmoid', [x])])];
    },
    // d(x·σ) = σ(1 + x(1 − σ)) dx = (σ + y(1 − σ)) dx
    vjp: ({ grad, inputs, outputs }) => [
      () => {
        const gate = sigmoid(inputs[0]!);
        return mul(grad, add(gate, mul(outputs[0]!, sub(1, gate))));
      },
    ],
  },
  gelu: {
    infer: inferUnary,
    emit: (emitter, node) => [emitter.node('Gelu', [emitter.name(node.inputs[0]!)])],
    // d(x·Φ) = (Φ + x·φ) dx with Φ = (1 + erf(x/√2))/2 and φ = e^(−x²/2)/√(2π)
    vjp: ({ grad, inputs }) => [
      () => {
        const x = inputs[0]!;
        const cdf = mul(add(erf(mul(x, SQRT_HALF)), 1), 0.5);
        const density = mul(exp(mul(mul(x, x), -0.5)), ONE_OVER_SQRT_2PI);
        return mul(grad, add(cdf, mul(x, density)));
      },
    ],
  },
  add: binary('Add', ({ grad }) => [() => grad, () => grad]),
  sub: binary('Sub', ({ grad }) => [() => grad, () => neg(grad)]),
  mul: binary('Mul', ({ grad, inputs }) => [() => mul(grad, inputs[1]!), () => mul(grad, inputs[0]!)]),
  // d(a/b) = da/b − (a/b)·db/b
  div: binary('Div', ({ grad, inputs, outputs }) => [
    () => div(grad, inputs[1]!),
    () => neg(mul(grad, div(outputs[0]!, inputs[1]!))),
  ]),
  // The smaller (larger) operand takes the gradient; at a tie the second one does, as the clip of a ratio at its border wants no more than one.
  minimum: binary('Min', ({ grad, inputs }) => [
    () => where(less(inputs[0]!, inputs[1]!), grad, 0),
    () => where(less(inputs[0]!, inputs[1]!), 0, grad),
  ]),
  maximum: binary('Max', ({ grad, inputs }) => [
    () => where(less(inputs[1]!, inputs[0]!), grad, 0),
    () => where(less(inputs[1]!, inputs[0]!), 0, grad),
  ]),
};
