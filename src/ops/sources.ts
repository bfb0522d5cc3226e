import { elementCount } from '../graph/tensor.js';
import { arity } from './infer.js';
import { nonDifferentiable, type OpRecords } from './record.js';

/** Where values come from. The emitter names inputs and parameters itself: they are the model's own inputs. */
export const sources: OpRecords<'input' | 'parameter' | 'constant' | 'stopGradient' | 'iota'> = {
  input: {
    infer: (inputs, { dtype, shape }) => {
      arity(inputs, 0);
      return [{ dtype, shape }];
    },
    emit: (emitter, node) => [emitter.name(node.outputs[0]!)],
    vjp: nonDifferentiable('an input is where a gradient ends'),
  },
  parameter: {
    infer: (inputs, { dtype, shape }) => {
      arity(inputs, 0);
      return [{ dtype, shape }];
    },
    emit: (emitter, node) => [emitter.name(node.outputs[0]!)],
    vjp: nonDifferentiable('a parameter is where a gradient ends'),
  },
  constant: {
    infer: (inputs, { dtype, shape, values }) => {
      arity(inputs, 0);
      if (values.length !== elementCount(shape))
        throw new RangeError(`${values.length} values for shape (${shape.join(', ')})`);
      const fraction = dtype.startsWith('float') ? undefined : values.find((value) => !Number.isInteger(value));
      if (fraction !== undefined) throw new RangeError(`${fraction} is not of ${dtype}`);
      return [{ dtype, shape }];
    },
    emit: (emitter, _, { dtype, shape, values }) => [emitter.constant(dtype, shape, values)],
    vjp: nonDifferentiable('a constant does not change'),
  },
  stopGradient: {
    infer: (inputs) => {
      arity(inputs, 1);
      return [inputs[0]!];
    },
    emit: (emitter, node) => [emitter.name(node.inputs[0]!)],
    vjp: nonDifferentiable('it is there to stop the gradient'),
  },
  iota: {
    infer: (inputs, { size }) => {
      arity(inputs, 0);
      return [{ dtype: 'int32', shape: [size] }];
    },
    emit: (emitter, _, { size }) => {
      const scalarShape = emitter.constant('int64', [0], []);
      const end = emitter.node('Cast', [emitter.node('Reshape', [emitter.dims([size]), scalarShape])], { to: 6 });
      return [emitter.node('Range', [emitter.constant('int32', [], [0]), end, emitter.constant('int32', [], [1])])];
    },
    vjp: nonDifferentiable('positions do not change'),
  },
};
