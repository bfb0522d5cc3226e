import { cast, sumTo, where } from './build.js';
import { arity, broadcastShapes, requireDType, requireNumber, requireSameDType } from './infer.js';
import { nonDifferentiable, type NoAttributes, type OpRecord, type OpRecords } from './record.js';

function comparison(opType: string): OpRecord<NoAttributes> {
  return {
    infer: (inputs) => {
      arity(inputs, 2);
      requireNumber(...inputs);
      requireSameDType(...inputs);
      return [{ dtype: 'bool', shape: broadcastShapes(inputs[0]!.shape, inputs[1]!.shape) }];
    },
    emit: (emitter, node) => [
      emitter.node(
        opType,
        node.inputs.map((input) => emitter.name(input)),
      ),
    ],
    vjp: nonDifferentiable('a comparison is a step'),
  };
}

function logical(opType: string, count: number): OpRecord<NoAttributes> {
  return {
    infer: (inputs) => {
      arity(inputs, count);
      requireDType(['bool'], ...inputs);
      return [{ dtype: 'bool', shape: broadcastShapes(inputs[0]!.shape, inputs.at(-1)!.shape) }];
    },
    emit: (emitter, node) => [
      emitter.node(
        opType,
        node.inputs.map((input) => emitter.name(input)),
      ),
    ],
    vjp: nonDifferentiable('a truth value is no number'),
  };
}

export const onnxDType = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float64: 11,
  uint32: 12,
} as const;

export const logic: OpRecords<'equal' | 'less' | 'and' | 'or' | 'not' | 'where' | 'cast'> = {
  equal: comparison('Equal'),
  less: comparison('Less'),
  and: logical('And', 2),
  or: logical('Or', 2),
  not: logical('Not', 1),
  where: {
    infer: (inputs) => {
      arity(inputs, 3);
      const [condition, a, b] = [inputs[0]!, inputs[1]!, inputs[2]!];
      requireDType(['bool'], condition);
      const shape = broadcastShapes(condition.shape, broadcastShapes(a.shape, b.shape));
      return [{ dtype: requireSameDType(a, b), shape }];
    },
    emit: (emitter, node) => [
      emitter.node(
        'Where',
        node.inputs.map((input) => emitter.name(input)),
      ),
    ],
    vjp: ({ grad, inputs }) => [
      null,
      () => sumTo(where(inputs[0]!, grad, 0), inputs[1]!.shape),
      () => sumTo(where(inputs[0]!, 0, grad), inputs[2]!.shape),
    ],
  },
  cast: {
    infer: (inputs, { to }) => {
      arity(inputs, 1);
      return [{ dtype: to, shape: inputs[0]!.shape }];
    },
    emit: (emitter, node, { to }) => [emitter.node('Cast', [emitter.name(node.inputs[0]!)], { to: onnxDType[to] })],
    // Between floats only: a cast to or from integers is a step.
    vjp: ({ grad, inputs, attributes }) => [
      inputs[0]!.dtype.startsWith('float') && attributes.to.startsWith('float')
        ? () => cast(grad, inputs[0]!.dtype)
        : null,
    ],
  },
};
