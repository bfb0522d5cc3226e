import { sizeOf, type Dim } from '../graph/dim.js';
import type { TensorType, Value } from '../graph/graph.js';
import { broadcastTo, cast, cumulativeSum, div, equal, mul, reduceSum, reshape, scalar } from './build.js';
import { arity, requireAxis, requireFloat, requireNumber } from './infer.js';
import type { OpAttributes, OpRecord, OpRecords, Vjp } from './record.js';

type Reduction = OpAttributes['reduceSum'];

const keptShape = (x: TensorType, axes: readonly number[]): Dim[] =>
  x.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim));

function reduction(opType: 'ReduceSum' | 'ReduceMean' | 'ReduceMax', vjp: Vjp<Reduction>): OpRecord<Reduction> {
  return {
    infer: (inputs, { axes, keepDims }) => {
      arity(inputs, 1);
      const x = inputs[0]!;
      requireNumber(x);
      for (const axis of axes) requireAxis(x, axis);
      if (new Set(axes).size !== axes.length) throw new RangeError(`the axes (${axes.join(', ')}) repeat`);
      const shape = keepDims ? keptShape(x, axes) : x.shape.filter((_, axis) => !axes.includes(axis));
      return [{ dtype: x.dtype, shape }];
    },
    emit: (emitter, node, { axes, keepDims }) => {
      const axesName = emitter.constant('int64', [axes.length], axes);
      return [emitter.node(opType, [emitter.name(node.inputs[0]!), axesName], { keepdims: keepDims ? 1 : 0 })];
    },
    vjp,
  };
}

/** The gradient of a reduced value, spread back over the shape that was reduced. */
const spread = (grad: Value, x: Value, axes: readonly number[]): Value =>
  broadcastTo(reshape(grad, keptShape(x, axes)), x.shape);

/** How many elements fall into one result: a number, or computed from the shape where it is symbolic. */
function groupSize(x: Value, axes: readonly number[]): Value | number {
  const size = sizeOf(axes.map((axis) => x.shape[axis]!));
  if (typeof size === 'number') return size;
  const ones = broadcastTo(scalar(x.graph, x.dtype, 1), [size]);
  return reduceSum(ones);
}

export const reduce: OpRecords<'reduceSum' | 'reduceMean' | 'reduceMax' | 'cumulativeSum'> = {
  reduceSum: reduction('ReduceSum', ({ grad, inputs, attributes }) => [
    () => spread(grad, inputs[0]!, attributes.axes),
  ]),
  reduceMean: reduction('ReduceMean', ({ grad, inputs, attributes }) => [
    () => spread(div(grad, groupSize(inputs[0]!, attributes.axes)), inputs[0]!, attributes.axes),
  ]),
  // Elements that share the maximum share its gradient equally.
  reduceMax: reduction('ReduceMax', ({ grad, inputs, outputs, attributes: { axes } }) => [
    () => {
      const x = inputs[0]!;
      const largest = cast(equal(x, reshape(outputs[0]!, keptShape(x, axes))), x.dtype);
      return mul(largest, div(reshape(grad, keptShape(x, axes)), reduceSum(largest, axes, true)));
    },
  ]),
  cumulativeSum: {
    infer: (inputs, { axis }) => {
      arity(inputs, 1);
      requireFloat(inputs[0]!);
      requireAxis(inputs[0]!, axis);
      return [inputs[0]!];
    },
    emit: (emitter, node, { axis, reverse }) => [
      emitter.node('CumSum', [emitter.name(node.inputs[0]!), emitter.constant('int32', [], [axis])], {
        reverse: reverse ? 1 : 0,
      }),
    ],
    vjp: ({ grad, attributes: { axis, reverse } }) => [() => cumulativeSum(grad, axis, !reverse)],
  },
};
