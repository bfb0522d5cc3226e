import type { Graph, Node, Value } from '../graph/graph.js';
import { bytesPerElement, elementCount } from '../graph/tensor.js';
import { recordOf } from '../ops/registry.js';

/** Bytes of a tensor whose shape has no symbols. */
export const bytesOf = ({ dtype, shape }: Pick<Value, 'dtype' | 'shape'>): number =>
  elementCount(shape as readonly number[]) * bytesPerElement(dtype);

export const totalBytes = (values: Iterable<Pick<Value, 'dtype' | 'shape'>>): number => {
  let total = 0;
  for (const value of values) total += bytesOf(value);
  return total;
};

/** Bytes of the parameters that ops take as they are, of which one copy serves all graphs. */
export function sharedBytes(graph: Graph): number {
  const shared = graph
    .liveNodes()
    .flatMap(({ op, inputs }) => (recordOf(op).shared ?? []).map((position) => inputs[position]!));
  return totalBytes(new Set(shared.filter(({ node }) => node.op === 'parameter')));
}

/**
 * Bytes that a session holds of the weights that its graph reads from files. A matrix that is multiplied by is packed
 * once for each direction that it is used in; one that is read piece by piece stays in its file, whose pages count once;
 * one that only rows are chosen from, and what all graphs share, counts nothing here.
 *
 * @param fed parameters that are fed instead, and kept by whoever feeds them
 * @param stored bytes of an element in the files
 */
export function weightBytes(graph: Graph, fed: ReadonlySet<string>, stored = 4): number {
  let total = 0;
  const streamed = new Set<Value>();
  for (const node of graph.liveNodes()) {
    for (const [position, input] of node.inputs.entries()) {
      const { op, attributes } = input.node;
      if (op !== 'parameter' || fed.has(String(attributes['name'])) || input.shape.length < 2) continue;
      if (isStreamed(node)) streamed.add(input);
      else total += copies(node, position) * bytesOf(input);
    }
  }
  for (const matrix of streamed) total += (bytesOf(matrix) / bytesPerElement(matrix.dtype)) * stored;
  return total;
}

const isStreamed = ({ op, attributes }: Node): boolean =>
  op === 'streamedMatmul' || (op === 'linearLogProbs' && attributes['form'] === 'streamed');

/** How many copies of a matrix a node makes the runtime keep, by the matrix's place among its inputs. */
function copies(node: Node, position: number): number {
  switch (node.op) {
    case 'gatherRows':
      return 0;
    // The transposed form is there for the gradient's node, which has it in the matrix's place.
    case 'int8Matmul':
      return position === 1 ? 1 : 0;
    // Inside a loop over chunks nothing is packed: one copy serves both directions.
    case 'linearLogProbs':
      return 1;
    default:
      return 1;
  }
}
