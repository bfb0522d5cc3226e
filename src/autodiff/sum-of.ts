import type { Value } from '../graph/graph.js';
import { add } from '../ops/build.js';

/**
 * total + share. Where the share is a product of two matrices or rows added into zeros, its node adds to the total
 * itself: the share alone never exists, and no pass of its own adds it.
 *
 * @param unread whether nothing else reads the share
 */
export function sumOf(total: Value, share: Value, unread: boolean): Value {
  const { op, inputs, attributes } = share.node;
  const isProduct = op === 'matmul' && inputs.every(({ shape }) => shape.length === 2);
  if (!unread || inputs.length !== 2 || (!isProduct && op !== 'scatterAddRows')) return add(total, share);
  return share.graph.add(op, [...inputs, total], attributes)[0]!;
}
