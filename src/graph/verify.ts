import { sameShape, symbolsOf, formatShape } from './dim.js';
import { GraphError, type Graph, type Node } from './graph.js';

const signature = (type: { dtype: string; shape: readonly (number | string)[] }): string =>
  `${type.dtype}${formatShape(type.shape)}`;

/**
 * The executable specification of a graph; throws GraphError at the first node that breaks it.
 * - nodes are numbered in order, and read only values of nodes before them in the same graph;
 * - each op accepts its inputs, and its rules yield exactly the types that the node claims;
 * - names of inputs, parameters and outputs are unique;
 * - each output is a value of the graph;
 * - each symbol of a live shape is a dimension of some live input, so that it has a value at run time.
 */
export function verify(graph: Graph): void {
  const names = new Set<string>();
  for (const [index, node] of graph.nodes.entries()) {
    const fail = (message: string): never => {
      throw new GraphError(message, index, node.op, node.inputs);
    };
    if (node.index !== index) fail(`is numbered ${node.index}`);
    for (const [position, input] of node.inputs.entries()) {
      if (input.graph !== graph) fail(`input ${position} belongs to another graph`);
      if (graph.nodes[input.node.index] !== input.node)
        fail(`input ${position} comes from a node that is not in the graph`);
      if (input.node.index >= index) fail(`input ${position} comes from the later node ${input.node.index}`);
      if (input.node.outputs[input.output] !== input)
        fail(`input ${position} is not an output of node ${input.node.index}`);
    }
    const types = graph.typesOf(index, node.op, node.inputs, node.attributes);
    if (types.length !== node.outputs.length)
      fail(`has ${node.outputs.length} outputs where its op yields ${types.length}`);
    for (const [position, type] of types.entries()) {
      const claimed = node.outputs[position]!;
      if (type.dtype !== claimed.dtype || !sameShape(type.shape, claimed.shape)) {
        fail(`claims output ${position} to be ${signature(claimed)} where its op yields ${signature(type)}`);
      }
    }
    if (node.op === 'input' || node.op === 'parameter') {
      const name = String(node.attributes['name']);
      if (names.has(name)) fail(`the name '${name}' is taken`);
      names.add(name);
    }
  }
  for (const [name, { graph: owner, node, output }] of graph.outputs) {
    const fail = (message: string): never => {
      throw new GraphError(message, node.index, node.op, node.inputs);
    };
    if (owner !== graph || graph.nodes[node.index] !== node || node.outputs[output] !== graph.outputs.get(name)) {
      fail(`output '${name}' is not a value of the graph`);
    }
    if (names.has(name)) fail(`output '${name}' has the name of an input`);
  }
  verifySymbols(graph.liveNodes());
}

function verifySymbols(live: readonly Node[]): void {
  const bound = new Set<string>();
  for (const node of live) {
    if (node.op !== 'input' && node.op !== 'parameter') continue;
    for (const dim of node.outputs[0]!.shape) if (typeof dim === 'string' && /^\w+$/.test(dim)) bound.add(dim);
  }
  for (const node of live) {
    for (const output of node.outputs) {
      const unbound = output.shape.flatMap((dim) => symbolsOf(dim)).find((symbol) => !bound.has(symbol));
      if (unbound === undefined) continue;
      throw new GraphError(`the symbol '${unbound}' is a dimension of no input`, node.index, node.op, node.inputs);
    }
  }
}
