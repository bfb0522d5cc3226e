import type { Graph, Node, Value } from '../graph/graph.js';
import { bytesPerElement, elementCount } from '../graph/tensor.js';

/** Bytes of a tensor whose shape has no symbols. */
export const bytesOf = ({ dtype, shape }: Pick<Value, 'dtype' | 'shape'>): number =>
  elementCount(shape as readonly number[]) * bytesPerElement(dtype);

export const totalBytes = (values: Iterable<Pick<Value, 'dtype' | 'shape'>>): number => {
  let total = 0;
  for (const value of values) total += bytesOf(value);
  return total;
};

/**
 * Bytes that a session holds of the weights that its graph reads from files. A matrix that is multiplied by is packed
 * once for each direction that it is used in; one that only rows are chosen from stays in its file.
 *
 * @param fed parameters that are fed instead, and kept by whoever feeds them
 */
export function weightBytes(graph: Graph, fed: ReadonlySet<string>): number {
  let total = 0;
  for (const node of graph.liveNodes()) {
    for (const [position, input] of node.inputs.entries()) {
      const { op, attributes } = input.node;
      if (op !== 'parameter' || fed.has(String(attributes['name'])) || input.shape.length < 2) continue;
      total += copies(node, position) * bytesOf(input);
    }
  }
  return total;
}

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
