import { describe, expect, it } from 'vitest';
import type { Dim } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import * as op from './build.js';
import { newGraph, recordOf } from './registry.js';

type Make = (dtype: DType, ...shape: Dim[]) => Value;

/** What is built, and what is said of it. */
const refusals: Record<string, [build: (value: Make) => unknown, message: string]> = {
  'operands of two dtypes': [(v) => op.add(v('float32', 2), v('float64', 2)), 'got float32 and float64'],
  'shapes that do not broadcast': [
    (v) => op.mul(v('float32', 'B', 2), v('float32', 'T', 2)),
    'shapes (B, 2) and (T, 2) do not broadcast',
  ],
  'truth values in arithmetic': [(v) => op.add(v('bool', 2), v('bool', 2)), 'got bool'],
  'the exponential of integers': [(v) => op.exp(v('int32', 2)), 'takes float32 or float64, got int32'],
  'a fraction as an integer': [(v) => op.mul(v('int32', 2), 0.5), '0.5 is not of int32'],
  'more values than a constant holds': [
    (v) => op.constant(v('float32').graph, 'float32', [3], [1, 2]),
    '2 values for shape (3)',
  ],
  'numbers as a condition': [(v) => op.where(v('float32', 2), v('float32', 2), 0), 'takes bool, got float32'],
  'the conjunction of numbers': [(v) => op.and(v('int32', 2), v('int32', 2)), 'takes bool, got int32'],
  'comparison across dtypes': [(v) => op.less(v('int32', 2), v('float32', 2)), 'got int32 and float32'],
  'matrices with other inner dimensions': [
    (v) => op.matmul(v('float32', 'B', 'T'), v('float32', 'B', 4)),
    'the inner dimensions differ: T and B',
  ],
  'a product of vectors': [(v) => op.matmul(v('float32', 3), v('float32', 3)), 'needs operands with 2 axes or more'],
  'an axis that is not there': [(v) => op.reduceSum(v('float32', 2, 3), 2), 'axis 2 is outside (2, 3)'],
  'an axis before the first': [(v) => op.reduceSum(v('float32', 2, 3), -3), 'axis -1 is outside (2, 3)'],
  'an axis twice': [(v) => op.reduceMean(v('float32', 2, 3), [0, -2]), 'the axes (0, 0) repeat'],
  'the softmax of a scalar': [(v) => op.softmax(v('float32')), 'axis -1 is outside ()'],
  'a norm weight of another size': [
    (v) => op.rmsNorm(v('float32', 'B', 4), v('float32', 3), 1e-6),
    'the normalised axis and the weight differ: 4 and 3',
  ],
  'a reshape to another number of elements': [
    (v) => op.reshape(v('float32', 'B', 'T', 2), ['B*T']),
    'the numbers of elements differ: 2*B*T and B*T',
  ],
  'a permutation that leaves out an axis': [
    (v) => op.transpose(v('float32', 2, 3), [0]),
    '(0) is not a permutation of 2 axes',
  ],
  'a permutation that repeats an axis': [
    (v) => op.transpose(v('float32', 2, 3), [1, 1]),
    '(1, 1) is not a permutation of 2 axes',
  ],
  'a broadcast that would shrink': [(v) => op.broadcastTo(v('float32', 4), [1]), 'does not broadcast to (1)'],
  'parts of other ranks': [
    (v) => op.concat([v('float32', 2, 3), v('float32', 2, 3, 4)], 1),
    'each part must have 2 axes, got (2, 3, 4)',
  ],
  'parts that differ beside the axis': [
    (v) => op.concat([v('float32', 'B', 3), v('float32', 'T', 3)], 1),
    'the dimensions of axis 0 differ: B and T',
  ],
  'a slice beyond the axis': [(v) => op.slice(v('float32', 3), 0, 1, 4), 'ends at 4, beyond the axis of 3'],
  'a slice from before the axis': [(v) => op.slice(v('float32', 3), 0, -1, 2), 'starts at -1, before the axis'],
  'a pad by less than nothing': [(v) => op.padAxis(v('float32', 3), 0, -1, 0), 'pads an axis by -1'],
  'a slice that ends before it starts': [(v) => op.slice(v('float32', 3), 0, 2, 1), 'ends at 1, before its start 2'],
  'indices that are not int32': [(v) => op.gatherRows(v('float32', 4, 2), v('int64', 3)), 'takes int32, got int64'],
  'picks with other leading axes': [
    (v) => op.gatherElements(v('float32', 'B', 4), v('int32', 'T', 1)),
    'the dimensions of axis 0 differ: B and T',
  ],
  'picks from a scalar': [(v) => op.gatherElements(v('float32'), v('int32')), 'axis -1 is outside ()'],
  'updates without an index': [
    (v) => op.scatterAddRows(v('float32', 3, 2), v('int32', 4), 5),
    'the numbers of updates and indices differ: 3 and 4',
  ],
  'scattered indices of two axes': [
    (v) => op.scatterAddRows(v('float32', 3, 2), v('int32', 3, 1), 5),
    'the indices must have 1 axes, got (3, 1)',
  ],
  'ids of other rows': [
    (v) => op.tokenLogProbs(v('float32', 'N', 9), v('int32', 'M')),
    'the numbers of rows and ids differ: N and M',
  ],
  'rotation of an odd size': [
    (v) => op.rotary(v('float32', 'T', 3), v('float32', 'T', 1), v('float32', 'T', 1)),
    'the last axis must be even, got 3',
  ],
  'angles that do not fit': [
    (v) => op.rotary(v('float32', 'T', 4), v('float32', 'B', 2), v('float32', 'B', 2)),
    'shapes (T, 2) and (B, 2) do not broadcast',
  ],
  'a negative range': [(v) => op.iota(v('float32').graph, -1), '-1 is not a dimension'],
};

describe('the rules of the ops', () => {
  it.each(Object.entries(refusals))('refuse %s, naming node, op, dtypes and shapes', (_, [build, message]) => {
    const graph = newGraph();
    let count = 0;
    const value: Make = (dtype, ...shape) => graph.input(`x${count++}`, dtype, shape);
    expect(() => build(value)).toThrow(message);
    expect(() => build(value)).toThrow(/^node \d+ \w+\(.*\): /);
  });

  it('know the ops of the registry and no name that every object has', () => {
    expect(() => recordOf('conjure')).toThrow("there is no op named 'conjure'");
    expect(() => recordOf('toString')).toThrow("there is no op named 'toString'");
  });
});

describe('the builders', () => {
  it('add no node for what changes nothing', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 3]);
    expect(op.reshape(x, ['B', 3])).toBe(x);
    expect(op.broadcastTo(x, ['B', 3])).toBe(x);
    expect(op.transpose(x, [0, 1])).toBe(x);
    expect(op.cast(x, 'float32')).toBe(x);
    expect(op.concat([x], 0)).toBe(x);
    expect(op.reduceSum(graph.input('s', 'float32', []))).toHaveProperty('shape', []);
    expect(graph.nodes.map((node) => node.op)).toEqual(['input', 'input']);
  });

  it('sum a value down to a shape that broadcasts to it, and refuse another', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2, 'B', 3]);
    expect(op.sumTo(x, ['B', 1]).shape).toEqual(['B', 1]);
    expect(op.sumTo(x, []).shape).toEqual([]);
    expect(() => op.sumTo(x, [1, 2, 'B', 3])).toThrow('(2, B, 3) cannot be summed to (1, 2, B, 3)');
  });

  it('pad an axis with zeros on either side', () => {
    const x = newGraph().input('x', 'float32', ['B', 3]);
    expect(op.padAxis(x, 0, 2, 'P').shape).toEqual(['B+P+2', 3]);
    expect(op.padAxis(x, 1, 0, 0)).toBe(x);
  });

  it('refuse operations that have no value to take a graph from', () => {
    expect(() => op.add(1, 2)).toThrow('an operation of two numbers needs no graph');
    const condition = newGraph().input('c', 'bool', [2]);
    expect(() => op.where(condition, 1, 2)).toThrow('where needs a value for its dtype');
    expect(() => op.concat([], 0)).toThrow('concat needs at least one value');
    expect(() => op.flattenRows(op.scalar(newGraph(), 'float32', 1))).toThrow('a 0-d value has no rows');
  });
});
