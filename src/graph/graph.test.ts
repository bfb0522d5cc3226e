import { describe, expect, it } from 'vitest';
import { add, matmul, mul, reduceSum } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { GraphError } from './graph.js';

describe('Graph.add', () => {
  it('names the node, its op, and the dtypes and shapes of its inputs when the op refuses them', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 3]);
    const w = graph.parameter('w', 'float32', [4, 5]);
    const attempt = (): unknown => matmul(x, w);
    expect(attempt).toThrow(GraphError);
    expect(attempt).toThrow('node 2 matmul(float32(B, 3), float32(4, 5)): the inner dimensions differ: 3 and 4');
  });

  it('appends nothing when it refuses', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2]);
    expect(() => add(x, graph.input('n', 'int32', [2]))).toThrow(
      'node 2 add(float32(2), int32(2)): takes operands of one dtype, got float32 and int32',
    );
    expect(graph.nodes.map(({ op }) => op)).toEqual(['input', 'input']);
  });

  it('refuses a value of another graph, an unknown op, and a shape that is none', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2]);
    const foreign = newGraph().input('y', 'float32', [2]);
    expect(() => add(x, foreign)).toThrow('node 1 add(float32(2), float32(2)): input 1 belongs to another graph');
    expect(() => graph.add('conjure', [x])).toThrow("node 1 conjure(float32(2)): there is no op named 'conjure'");
    expect(() => graph.input('z', 'float32', [-2])).toThrow('node 1 input(): -2 is not a dimension');
    expect(() => graph.input('z', 'float32', ['B T'])).toThrow("node 1 input(): 'B T' is not a dimension");
  });

  it('writes dimensions in canonical form', () => {
    const graph = newGraph();
    expect(graph.input('x', 'float32', ['T*B', 'T+P', 3]).shape).toEqual(['B*T', 'P+T', 3]);
  });
});

describe('Graph.output', () => {
  it('takes one value a name', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2]);
    expect(graph.output('y', x)).toBe(x);
    expect(() => graph.output('y', x)).toThrow("the graph already has an output named 'y'");
  });
});

describe('Graph.liveNodes', () => {
  it('gives what the outputs need, once and in order', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2]);
    const unused = graph.input('unused', 'float32', [2]);
    mul(unused, x);
    const square = mul(x, x);
    graph.output('y', reduceSum(add(square, square)));
    graph.output('square', square);
    expect(graph.liveNodes().map(({ op, index }) => [index, op])).toEqual([
      [0, 'input'],
      [3, 'mul'],
      [4, 'add'],
      [5, 'reduceSum'],
    ]);
  });
});
