import { describe, expect, it } from 'vitest';
import { add, broadcastTo, iota, mul, reshape } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { GraphError, type Graph, type Node, type Value } from './graph.js';
import { verify } from './verify.js';

/** x (B, 3) → y = x·x + x; nodes 0 input, 1 mul, 2 add. */
function sample(): { graph: Graph; x: Value; square: Value; y: Value } {
  const graph = newGraph();
  const x = graph.input('x', 'float32', ['B', 3]);
  const square = mul(x, x);
  const y = graph.output('y', add(square, x));
  return { graph, x, square, y };
}

/** Puts a changed node in the place of another; what reads the old one's outputs still does. */
function tamper(graph: Graph, index: number, change: Partial<Node>): Node {
  const node = { ...graph.nodes[index]!, ...change };
  graph.nodes[index] = node;
  return node;
}

/** Puts a node in the place of another with outputs of its own, and lets the later nodes read them. */
function retype(graph: Graph, index: number, change: Partial<Node>, type: Partial<Value>): void {
  const old = graph.nodes[index]!;
  const outputs: Value[] = [];
  const node: Node = { ...old, ...change, outputs };
  for (const output of old.outputs) outputs.push({ ...output, ...type, node });
  graph.nodes[index] = node;
  const renewed = (value: Value): Value => (value.node === old ? outputs[value.output]! : value);
  for (const later of graph.nodes.slice(index + 1)) tamper(graph, later.index, { inputs: later.inputs.map(renewed) });
  for (const [name, value] of graph.outputs) {
    const { node: maker, output } = renewed(value);
    graph.outputs.set(name, graph.nodes[maker.index]!.outputs[output]!);
  }
}

function expectRefusal(graph: Graph, message: string): void {
  expect(() => {
    verify(graph);
  }).toThrow(GraphError);
  expect(() => {
    verify(graph);
  }).toThrow(message);
}

describe('verify', () => {
  it('accepts what the builders make, dimensions written in any order included', () => {
    const { graph } = sample();
    const z = graph.input('z', 'float32', ['T', 'B']);
    graph.output('flat', broadcastTo(reshape(z, ['T*B']), [2, 'T*B']));
    expect(() => {
      verify(graph);
    }).not.toThrow();
  });

  it('refuses a node with another number', () => {
    const { graph } = sample();
    tamper(graph, 1, { index: 5 });
    expectRefusal(graph, 'node 1 mul(float32(B, 3), float32(B, 3)): is numbered 5');
  });

  it('refuses an input of another graph', () => {
    const { graph, x } = sample();
    tamper(graph, 1, { inputs: [x, newGraph().input('x', 'float32', ['B', 3])] });
    expectRefusal(graph, 'node 1 mul(float32(B, 3), float32(B, 3)): input 1 belongs to another graph');
  });

  it('refuses an input from a node that was replaced', () => {
    const { graph } = sample();
    tamper(graph, 1, {});
    expectRefusal(
      graph,
      'node 2 add(float32(B, 3), float32(B, 3)): input 0 comes from a node that is not in the graph',
    );
  });

  it('refuses an input from a later node', () => {
    const { graph, x, y } = sample();
    tamper(graph, 1, { inputs: [x, y] });
    expectRefusal(graph, 'node 1 mul(float32(B, 3), float32(B, 3)): input 1 comes from the later node 2');
  });

  it('refuses a value that is no output of its node', () => {
    const { graph, x, square } = sample();
    tamper(graph, 2, { inputs: [{ ...square }, x] });
    expectRefusal(graph, 'node 2 add(float32(B, 3), float32(B, 3)): input 0 is not an output of node 1');
  });

  it('refuses an op that it does not know', () => {
    const { graph } = sample();
    tamper(graph, 2, { op: 'conjure' });
    expectRefusal(graph, "node 2 conjure(float32(B, 3), float32(B, 3)): there is no op named 'conjure'");
  });

  it('refuses inputs that the op would not take', () => {
    const { graph, x } = sample();
    tamper(graph, 2, { inputs: [x] });
    expectRefusal(graph, 'node 2 add(float32(B, 3)): takes 2 inputs, got 1');
  });

  it('refuses another number of outputs than the op yields', () => {
    const { graph } = sample();
    tamper(graph, 2, { outputs: [] });
    expectRefusal(graph, 'node 2 add(float32(B, 3), float32(B, 3)): has 0 outputs where its op yields 1');
  });

  it.each<[string, Partial<Value>]>([
    ['float64(B, 3)', { dtype: 'float64' }],
    ['float32(B, 4)', { shape: ['B', 4] }],
    ['float32(3, B)', { shape: [3, 'B'] }],
  ])('refuses a node that claims to yield %s', (claim, type) => {
    const { graph } = sample();
    retype(graph, 1, {}, type);
    expectRefusal(
      graph,
      `node 1 mul(float32(B, 3), float32(B, 3)): claims output 0 to be ${claim} where its op yields float32(B, 3)`,
    );
  });

  it('refuses a second input of the same name', () => {
    const { graph } = sample();
    graph.parameter('x', 'float32', [1]);
    expectRefusal(graph, "node 3 parameter(): the name 'x' is taken");
  });

  it('refuses an output with the name of an input', () => {
    const { graph, square } = sample();
    graph.output('x', square);
    expectRefusal(graph, "node 1 mul(float32(B, 3), float32(B, 3)): output 'x' has the name of an input");
  });

  it('refuses an output of another graph, and one that is no value of its node', () => {
    const other = sample();
    other.graph.output('foreign', sample().square);
    expectRefusal(
      other.graph,
      "node 1 mul(float32(B, 3), float32(B, 3)): output 'foreign' is not a value of the graph",
    );
    const own = sample();
    own.graph.output('copied', { ...own.square });
    expectRefusal(own.graph, "output 'copied' is not a value of the graph");
  });

  it('refuses a symbol that no live input has as a dimension', () => {
    const { graph } = sample();
    graph.output('positions', iota(graph, 'T'));
    expectRefusal(graph, "node 3 iota(): the symbol 'T' is a dimension of no input");
    graph.input('sized', 'float32', ['T']);
    expectRefusal(graph, "the symbol 'T' is a dimension of no input");
  });

  it('refuses a symbol that inputs have within a longer dimension alone', () => {
    const { graph } = sample();
    graph.output('sum', graph.input('z', 'float32', ['P+T', 'T']));
    expectRefusal(graph, "node 3 input(): the symbol 'P' is a dimension of no input");
  });

  it('does not mind symbols of nodes that no output needs', () => {
    const { graph } = sample();
    iota(graph, 'T');
    expect(() => {
      verify(graph);
    }).not.toThrow();
  });
});
