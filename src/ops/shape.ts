import { addDims, canonical, formatShape, sameShape, sizeOf, subDims, type Dim } from '../graph/dim.js';
import { padAxis, reshape as reshaped, slice as part, sumTo, transpose as permuted } from './build.js';
import {
  arity,
  broadcastShapes,
  requireAxis,
  requireNumber,
  requireRank,
  requireSameDim,
  requireSameDType,
} from './infer.js';
import type { OpRecords } from './record.js';

export const shapeOps: OpRecords<'reshape' | 'transpose' | 'broadcastTo' | 'concat' | 'slice' | 'pad'> = {
  reshape: {
    infer: (inputs, { shape }) => {
      arity(inputs, 1);
      const x = inputs[0]!;
      requireSameDim(sizeOf(x.shape), sizeOf(shape), 'the numbers of elements');
      return [{ dtype: x.dtype, shape }];
    },
    emit: (emitter, node, { shape }) => {
      const x = node.inputs[0]!;
      const target = reshapeTarget(x.shape, shape);
      const shapeName = target === undefined ? emitter.dims(shape) : emitter.constant('int64', [target.length], target);
      return [emitter.node('Reshape', [emitter.name(x), shapeName])];
    },
    vjp: ({ grad, inputs }) => [() => reshaped(grad, inputs[0]!.shape)],
  },
  transpose: {
    infer: (inputs, { permutation }) => {
      arity(inputs, 1);
      const x = inputs[0]!;
      if (permutation.length !== x.shape.length || new Set(permutation).size !== permutation.length) {
        throw new RangeError(`(${permutation.join(', ')}) is not a permutation of ${x.shape.length} axes`);
      }
      return [{ dtype: x.dtype, shape: permutation.map((axis) => requireAxis(x, axis)) }];
    },
    emit: (emitter, node, { permutation }) => [
      emitter.node('Transpose', [emitter.name(node.inputs[0]!)], { perm: permutation }),
    ],
    vjp: ({ grad, attributes: { permutation } }) => [
      () =>
        permuted(
          grad,
          permutation.map((_, axis) => permutation.indexOf(axis)),
        ),
    ],
  },
  broadcastTo: {
    infer: (inputs, { shape }) => {
      arity(inputs, 1);
      const x = inputs[0]!;
      const target = shape.map(canonical);
      if (!sameShape(broadcastShapes(x.shape, target), target))
        throw new RangeError(`does not broadcast to ${formatShape(target)}`);
      return [{ dtype: x.dtype, shape: target }];
    },
    emit: (emitter, node, { shape }) => [emitter.node('Expand', [emitter.name(node.inputs[0]!), emitter.dims(shape)])],
    vjp: ({ grad, inputs }) => [() => sumTo(grad, inputs[0]!.shape)],
  },
  concat: {
    infer: (inputs, { axis }) => {
      const first = inputs[0];
      if (first === undefined) throw new RangeError('takes at least one input');
      requireSameDType(...inputs);
      let length: Dim = 0;
      for (const input of inputs) {
        length = addDims(length, requireAxis(input, axis));
        requireRank(input, first.shape.length, 'each part');
        for (const [position, dim] of first.shape.entries()) {
          if (position !== axis)
            requireSameDim(dim, requireAxis(input, position), `the dimensions of axis ${position}`);
        }
      }
      return [{ dtype: first.dtype, shape: first.shape.map((dim, position) => (position === axis ? length : dim)) }];
    },
    emit: (emitter, node, { axis }) => [
      emitter.node(
        'Concat',
        node.inputs.map((input) => emitter.name(input)),
        { axis },
      ),
    ],
    vjp: ({ grad, inputs, attributes: { axis } }) => {
      let end: Dim = 0;
      return inputs.map((input) => {
        const start = end;
        end = addDims(start, input.shape[axis]!);
        const stop = end;
        return () => part(grad, axis, start, stop);
      });
    },
  },
  slice: {
    infer: (inputs, { axis, start, end }) => {
      arity(inputs, 1);
      const x = inputs[0]!;
      const dim = requireAxis(x, axis);
      const length = subDims(end, start);
      if (typeof start === 'number' && start < 0) throw new RangeError(`starts at ${start}, before the axis`);
      if (typeof length === 'number' && length < 0) throw new RangeError(`ends at ${end}, before its start ${start}`);
      if (typeof dim === 'number' && typeof end === 'number' && end > dim)
        throw new RangeError(`ends at ${end}, beyond the axis of ${dim}`);
      return [{ dtype: x.dtype, shape: x.shape.map((size, position) => (position === axis ? length : size)) }];
    },
    emit: (emitter, node, { axis, start, end }) => [
      emitter.node('Slice', [
        emitter.name(node.inputs[0]!),
        emitter.dims([start]),
        emitter.dims([end]),
        emitter.constant('int64', [1], [axis]),
      ]),
    ],
    vjp: ({ grad, inputs, attributes: { axis, start, end } }) => [
      () => padAxis(grad, axis, start, subDims(inputs[0]!.shape[axis]!, end)),
    ],
  },
  pad: {
    infer: (inputs, { axis, before, after }) => {
      arity(inputs, 1);
      const x = inputs[0]!;
      requireNumber(x);
      for (const size of [before, after]) {
        if (typeof size === 'number' && size < 0) throw new RangeError(`pads an axis by ${size}`);
      }
      const length = addDims(addDims(before, requireAxis(x, axis)), after);
      return [{ dtype: x.dtype, shape: x.shape.map((size, position) => (position === axis ? length : size)) }];
    },
    emit: (emitter, node, { axis, before, after }) => {
      const x = node.inputs[0]!;
      const zero = emitter.constant(x.dtype, [], [0]);
      return [
        emitter.node('Pad', [
          emitter.name(x),
          emitter.dims([before, after]),
          zero,
          emitter.constant('int64', [1], [axis]),
        ]),
      ];
    },
    vjp: ({ grad, inputs, attributes: { axis, before } }) => [
      () => part(grad, axis, before, addDims(before, inputs[0]!.shape[axis]!)),
    ],
  },
};

/**
 * The target as ONNX's Reshape takes it without any arithmetic at run time: 0 copies the dimension at the same
 * position, −1 is inferred, once. Undefined where that does not suffice.
 */
function reshapeTarget(from: readonly Dim[], to: readonly Dim[]): number[] | undefined {
  const target = to.map((dim, axis) => (typeof dim === 'number' ? dim : dim === from[axis] ? 0 : -1));
  return target.filter((dim) => dim === -1).length <= 1 && !to.includes(0) ? target : undefined;
}
