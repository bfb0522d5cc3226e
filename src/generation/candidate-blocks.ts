import { mulDims } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import { add, gatherRows, iota, mul, reduceMax, reshape, scalar, softmax, topK } from '../ops/build.js';

/** Consecutive tokens of a block, at most; a divisor of the vocabulary is taken. */
const LONGEST_BLOCK = 32;
/** Blocks that come back of each row. */
const BLOCKS = 256;

export interface BlockSizes {
  /** Consecutive token ids in a block. */
  readonly length: number;
  /** Blocks that come back. */
  readonly chosen: number;
}

export function blockSizes(vocabSize: number): BlockSizes {
  let length = Math.min(LONGEST_BLOCK, vocabSize);
  while (vocabSize % length !== 0) length--;
  return { length, chosen: Math.min(BLOCKS, vocabSize / length) };
}

/**
 * Makes outputs of what a token is usually drawn from, so that whole rows of logits stay where they are computed: the
 * blocks of consecutive tokens with the largest maxima. Every logit above the smallest of these maxima is among them,
 * and finding them is one pass over the row, where selecting single tokens takes many.
 *
 * Feeds: `inverse_temperature` float32 scalar. Outputs: `block_ids` int32 (B, K), by falling maximum; `block_logits`
 * float32 (B, K, L), as the model gives them; `top_probability` (B), the likeliest token's share of the whole row at the
 * temperature.
 *
 * @param logits (B, V)
 */
export function outputCandidates(logits: Value): void {
  const { graph, shape } = logits;
  const [batch, vocabSize] = shape as [string, number];
  const { length, chosen } = blockSizes(vocabSize);
  const blocks = vocabSize / length;
  const grouped = reshape(logits, [batch, blocks, length]);
  const ids = topK(reduceMax(grouped, -1), chosen).indices;
  const firstRow = mul(reshape(iota(graph, batch), [batch, 1]), scalar(graph, 'int32', blocks));
  const rows = reshape(logits, [mulDims(blocks, batch), length]);
  graph.output('block_ids', ids);
  graph.output('block_logits', gatherRows(rows, add(firstRow, ids)));
  const scaled = mul(logits, graph.input('inverse_temperature', 'float32', []));
  graph.output('top_probability', reduceMax(softmax(scaled), -1));
}
