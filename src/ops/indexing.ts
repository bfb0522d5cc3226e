import type { Node, TensorType, Value } from '../graph/graph.js';
import {
  gatherElements as pick,
  gatherRows as rowsOf,
  rearrangeRows as rearrange,
  reshape,
  scatterAddElements as scatter,
  scatterAddRows as scatterRows,
} from './build.js';
import { formatShape, sameShape, sizeOf } from '../graph/dim.js';
import {
  arity,
  requireAxis,
  requireDType,
  requireFloat,
  requireRank,
  requireSameDim,
  requireSameDType,
} from './infer.js';
import { onnxDType } from './logic.js';
import type { Emitter, OpRecords } from './record.js';

function requireSameLeading(x: TensorType, indices: TensorType): void {
  if (x.shape.length !== indices.shape.length)
    throw new RangeError('the indices must have as many axes as the operand');
  requireAxis(x, x.shape.length - 1);
  for (let axis = 0; axis < x.shape.length - 1; axis++) {
    requireSameDim(requireAxis(x, axis), requireAxis(indices, axis), `the dimensions of axis ${axis}`);
  }
}

/** A zero tensor of the node's output type, to scatter into. */
function zeroOutput(emitter: Emitter, node: Node): string {
  const { dtype, shape } = node.outputs[0]!;
  return emitter.node('Expand', [emitter.constant(dtype, [], [0]), emitter.dims(shape)]);
}

export const indexing: OpRecords<
  'gatherRows' | 'rearrangeRows' | 'scatterAddRows' | 'gatherElements' | 'scatterAddElements' | 'topK'
> = {
  gatherRows: {
    infer: (inputs) => {
      arity(inputs, 2);
      const [table, indices] = [inputs[0]!, inputs[1]!];
      requireDType(['int32'], indices);
      requireAxis(table, 0);
      return [{ dtype: table.dtype, shape: [...indices.shape, ...table.shape.slice(1)] }];
    },
    emit: (emitter, node) => {
      const [table, indices] = node.inputs as [Value, Value];
      const stored = emitter.stored(table);
      const rows = emitter.node('Gather', [stored ?? emitter.name(table), emitter.name(indices)], { axis: 0 });
      // Widened after the choice: the whole table as float32 would take twice its memory.
      return [stored === undefined ? rows : emitter.node('Cast', [rows], { to: onnxDType[table.dtype] })];
    },
    // A row used several times gets the sum of their gradients.
    vjp: ({ grad, inputs }) => [
      () => {
        const [table, indices] = [inputs[0]!, inputs[1]!];
        const count = sizeOf(indices.shape);
        return scatterRows(reshape(grad, [count, ...table.shape.slice(1)]), reshape(indices, [count]), table.shape[0]!);
      },
      null,
    ],
  },
  rearrangeRows: {
    infer: (inputs) => {
      arity(inputs, 3);
      const [x, from, to] = inputs as [TensorType, TensorType, TensorType];
      requireDType(['int32'], from);
      requireDType(['int32'], to);
      requireRank(to, 1, 'the places of rows');
      requireSameDim(requireAxis(x, 0), requireAxis(to, 0), 'the numbers of rows and of their places');
      return [{ dtype: x.dtype, shape: [...from.shape, ...x.shape.slice(1)] }];
    },
    emit: (emitter, node, { holes }) => {
      const [x, from] = [emitter.name(node.inputs[0]!), emitter.name(node.inputs[1]!)];
      if (holes === 'to') return [emitter.node('Gather', [x, from], { axis: 0 })];
      // −1 is the last row.
      const { dtype, shape } = node.inputs[0]!;
      const none = emitter.node('Expand', [emitter.constant(dtype, [], [0]), emitter.dims([1, ...shape.slice(1)])]);
      return [emitter.node('Gather', [emitter.node('Concat', [x, none], { axis: 0 }), from], { axis: 0 })];
    },
    vjp: ({ grad, inputs, attributes }) => [
      () => {
        const [x, from, to] = inputs as [Value, Value, Value];
        const places = sizeOf(from.shape);
        return rearrange(reshape(grad, [places, ...x.shape.slice(1)]), {
          from: to,
          to: reshape(from, [places]),
          holes: attributes.holes === 'from' ? 'to' : 'from',
        });
      },
      null,
      null,
    ],
  },
  // Into zeros, or into a third input of the output's shape.
  scatterAddRows: {
    infer: (inputs, { rows }) => {
      if (inputs.length !== 3) arity(inputs, 2);
      const [updates, indices, base] = inputs as [TensorType, TensorType, TensorType | undefined];
      requireDType(['int32'], indices);
      requireRank(indices, 1, 'the indices');
      requireSameDim(requireAxis(updates, 0), requireAxis(indices, 0), 'the numbers of updates and indices');
      const shape = [rows, ...updates.shape.slice(1)];
      if (base !== undefined) {
        requireSameDType(updates, base);
        if (!sameShape(base.shape, shape)) {
          throw new RangeError(`rows are added to ${formatShape(base.shape)}, not to ${formatShape(shape)}`);
        }
      }
      return [{ dtype: updates.dtype, shape }];
    },
    emit: (emitter, node) => {
      const [updates, indices] = [emitter.name(node.inputs[0]!), emitter.name(node.inputs[1]!)];
      const base = node.inputs[2] === undefined ? zeroOutput(emitter, node) : emitter.name(node.inputs[2]);
      const wide = emitter.node('Cast', [indices], { to: 7 });
      const column = emitter.node('Unsqueeze', [wide, emitter.constant('int64', [1], [1])]);
      return [emitter.node('ScatterND', [base, column, updates], { reduction: 'add' })];
    },
    vjp: ({ grad, inputs }) => [() => rowsOf(grad, inputs[1]!), null, ...(inputs.length === 3 ? [() => grad] : [])],
  },
  gatherElements: {
    infer: (inputs) => {
      arity(inputs, 2);
      const [x, indices] = [inputs[0]!, inputs[1]!];
      requireDType(['int32'], indices);
      requireSameLeading(x, indices);
      return [{ dtype: x.dtype, shape: indices.shape }];
    },
    emit: (emitter, node) => [
      emitter.node(
        'GatherElements',
        node.inputs.map((input) => emitter.name(input)),
        { axis: node.inputs[0]!.shape.length - 1 },
      ),
    ],
    vjp: ({ grad, inputs }) => [() => scatter(grad, inputs[1]!, inputs[0]!.shape.at(-1)!), null],
  },
  scatterAddElements: {
    infer: (inputs, { size }) => {
      arity(inputs, 2);
      const [updates, indices] = [inputs[0]!, inputs[1]!];
      requireDType(['int32'], indices);
      requireSameLeading(updates, indices);
      requireSameDim(updates.shape.at(-1)!, indices.shape.at(-1)!, 'the numbers of updates and indices');
      return [{ dtype: updates.dtype, shape: [...updates.shape.slice(0, -1), size] }];
    },
    emit: (emitter, node) => [
      emitter.node(
        'ScatterElements',
        [zeroOutput(emitter, node), emitter.name(node.inputs[1]!), emitter.name(node.inputs[0]!)],
        {
          axis: node.outputs[0]!.shape.length - 1,
          reduction: 'add',
        },
      ),
    ],
    vjp: ({ grad, inputs }) => [() => pick(grad, inputs[1]!), null],
  },
  // Values (…, count), largest first, and their indices int32 (…, count); of equal values the lower index comes first.
  // Each value's gradient goes back to where it stood.
  topK: {
    infer: (inputs, { count }) => {
      arity(inputs, 1);
      const x = inputs[0]!;
      requireFloat(x);
      const size = requireAxis(x, x.shape.length - 1);
      if (count !== size && (typeof count === 'string' || count < 1 || (typeof size === 'number' && count > size)))
        throw new RangeError(`${count} elements cannot be taken of ${size}`);
      const shape = [...x.shape.slice(0, -1), count];
      return [
        { dtype: x.dtype, shape },
        { dtype: 'int32', shape },
      ];
    },
    emit: (emitter, node, { count }) => {
      const x = emitter.name(node.inputs[0]!);
      const size = typeof count === 'number' ? emitter.constant('int64', [1], [count]) : emitter.dims([count]);
      const [values, indices] = emitter.nodes(2, 'TopK', [x, size], {
        axis: -1,
        largest: 1,
        sorted: 1,
      }) as [string, string];
      return [values, emitter.node('Cast', [indices], { to: 6 })];
    },
    vjp: ({ grad, inputs, outputs }) => [() => scatter(grad, outputs[1]!, inputs[0]!.shape.at(-1)!)],
  },
};
