import { mulDims } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import { add, exp, gatherRows, iota, mul, reduceMax, reduceSum, reshape, scalar, sub, topK } from '../ops/build.js';

/** Consecutive tokens of a block, at most; a divisor of the vocabulary is taken. */
const LONGEST_BLOCK = 32;

/** Consecutive token ids in a block. */
export function blockLength(vocabSize: number): number {
  let length = Math.min(LONGEST_BLOCK, vocabSize);
  while (vocabSize % length !== 0) length--;
  return length;
}

/**
 * Makes outputs of what tokens are drawn from, so that whole rows stay where they are computed.
 *
 * Outputs: `weights` (B, V), each token's probability over that of the likeliest one; of each block of consecutive
 * tokens `block_sums` and `block_maxima` (B, N), sum and maximum of its weights; the block that holds the likeliest
 * token, `best_block` int32 (B, 1), with its logits, `best_logits` (B, 1, L).
 *
 * @param logits (B, V), divided by the temperature
 */
export function outputBlockSums(logits: Value): void {
  const { graph, shape } = logits;
  const [batch, vocabSize] = shape as [string, number];
  const length = blockLength(vocabSize);
  const blocks = vocabSize / length;
  const maxima = reduceMax(reshape(logits, [batch, blocks, length]), -1);
  const best = topK(maxima, 1);
  const firstRow = mul(reshape(iota(graph, batch), [batch, 1]), scalar(graph, 'int32', blocks));
  const rows = reshape(logits, [mulDims(blocks, batch), length]);
  graph.output('best_block', best.indices);
  graph.output('best_logits', gatherRows(rows, add(firstRow, best.indices)));
  graph.output('block_maxima', exp(sub(maxima, best.values)));
  const weights = exp(sub(logits, best.values));
  graph.output('weights', weights);
  graph.output('block_sums', reduceSum(reshape(weights, [batch, blocks, length]), -1));
}
