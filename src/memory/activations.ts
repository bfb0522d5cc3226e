import { evaluateDim } from '../graph/dim.js';
import type { Graph, Node, Value } from '../graph/graph.js';
import { bytesPerElement } from '../graph/tensor.js';
import { PIECE } from '../ops/build.js';

/** Values of the symbols of a graph's shapes. */
export type Sizes = Readonly<Record<string, number>>;

/** Nodes whose output is the memory of their first input. */
const ALIASES = new Set(['reshape', 'stopGradient']);

/** Nodes that are there before the graph runs. */
const GIVEN = new Set(['input', 'parameter', 'constant']);

/** Nodes that may write over an operand of their output's size that nothing reads afterwards. */
const IN_PLACE = new Set(
  ['neg', 'exp', 'log', 'sqrt', 'reciprocal', 'tanh', 'sigmoid', 'add', 'sub', 'mul', 'div', 'where', 'softmax'].concat(
    'minimum',
    'maximum',
  ),
);

/**
 * Largest number of bytes that the intermediate values of one run take at the same time: nodes run in their order, a
 * value lives from the node that makes it to the last that reads it, and outputs live to the end. What a node needs for
 * itself while it runs counts too.
 *
 * @param elsewhere values that are written into tensors that are there anyway
 */
export function activationBytes(graph: Graph, sizes: Sizes, elsewhere: ReadonlySet<Value> = new Set()): number {
  const bindings = new Map(Object.entries(sizes));
  const bytesOf = (value: Value): number => {
    if (elsewhere.has(value)) return 0;
    return value.shape.reduce<number>(
      (product, dim) => product * evaluateDim(dim, bindings),
      bytesPerElement(value.dtype),
    );
  };
  const nodes = graph.liveNodes();
  const owners = new Map<Value, Value>();
  const owner = (value: Value): Value => owners.get(value) ?? value;
  const lastUse = new Map<Value, number>();
  for (const [at, node] of nodes.entries()) {
    if (ALIASES.has(node.op)) owners.set(node.outputs[0]!, owner(node.inputs[0]!));
    for (const input of node.inputs) lastUse.set(owner(input), at);
  }
  for (const value of graph.outputs.values()) lastUse.set(owner(value), nodes.length);

  const codes = codesOf(nodes);
  let [live, peak] = [0, 0];
  for (const [at, node] of nodes.entries()) {
    if (GIVEN.has(node.op)) continue;
    const ends = [...new Set(node.inputs.map(owner))].filter(
      (value) => lastUse.get(value) === at && !GIVEN.has(value.node.op),
    );
    const freed = ends.reduce((sum, value) => sum + bytesOf(value), 0);
    for (const matrix of codes.made(at)) live += bytesOf(matrix) / 4;
    if (!ALIASES.has(node.op)) {
      const made = node.outputs.filter((output) => lastUse.has(output)).reduce((sum, value) => sum + bytesOf(value), 0);
      const overwrites = IN_PLACE.has(node.op) && ends.some((value) => bytesOf(value) === made);
      peak = Math.max(peak, live + (overwrites ? 0 : made) + workspaceBytes(node, bytesOf, bindings));
      live += made;
    }
    live -= freed;
    for (const matrix of codes.dropped(at)) live -= bytesOf(matrix) / 4;
  }
  return peak;
}

/** The matrices whose codes of 8 bits a node makes, being the first to multiply with them, and is the last to need. */
function codesOf(nodes: readonly Node[]) {
  const uses = new Map<Value, { first: number; last: number }>();
  for (const [at, { op, inputs }] of nodes.entries()) {
    if (op !== 'roundedMatmul') continue;
    const matrix = inputs[1]!;
    uses.set(matrix, { first: uses.get(matrix)?.first ?? at, last: at });
  }
  const at = (which: 'first' | 'last') => (index: number) =>
    [...uses].filter(([, use]) => use[which] === index).map(([matrix]) => matrix);
  return { made: at('first'), dropped: at('last') };
}

/** What a node needs beside its inputs and outputs, from how it is written in ONNX. */
function workspaceBytes(node: Node, bytesOf: (value: Value) => number, sizes: ReadonlyMap<string, number>): number {
  switch (node.op) {
    // The counter and its product, in 32 bits.
    case 'dropoutMask':
      return 2 * bytesOf(node.outputs[0]!);
    // Scaled rows, their magnitudes, and the bytes.
    case 'int8Matmul':
      return 2.25 * bytesOf(node.inputs[0]!);
    // The same, beside the matrix's magnitudes and its transposed codes.
    case 'roundedMatmul':
      return 2.25 * bytesOf(node.inputs[0]!) + 1.25 * bytesOf(node.inputs[1]!);
    // The matrix in float32, in the kernel; or the values of its codes and their products with the scales.
    case 'nf4Matmul': {
      const { rows, columns, adjoint } = node.attributes as { rows: number; columns: number; adjoint: boolean };
      return (adjoint ? 8 : 4) * rows * columns;
    }
    // A piece as it is stored and widened, and the outputs of the pieces before they are put together.
    case 'streamedMatmul':
      return 2 * Math.min(4 * PIECE, bytesOf(node.inputs[1]!)) + bytesOf(node.outputs[0]!);
    case 'linearLogProbs': {
      // Logits of a chunk, their log-softmax and its exponential; rows as they are cut and put together.
      const { chunk, form } = node.attributes as { chunk: number; form: string };
      const [hidden, , , head] = node.inputs as [Value, Value, Value, Value];
      const [rows, width] = hidden.shape.map((dim) => evaluateDim(dim, sizes)) as [number, number];
      const vocabulary = Math.max(...head.shape.map((dim) => evaluateDim(dim, sizes)));
      const pieces =
        form === 'streamed' ? 2 * Math.min(PIECE, vocabulary * width) + Math.min(rows, chunk) * vocabulary : 0;
      return 4 * (3 * Math.min(rows, chunk) * vocabulary + pieces + 4 * rows * width);
    }
    default:
      return 0;
  }
}
