import { mulDims } from '../graph/dim.js';
import type { Value } from '../graph/graph.js';
import { add, gatherRows, iota, mul, reduceMax, reduceSum, reshape, scalar, softmax, topK } from '../ops/build.js';

/** Consecutive tokens of a block, at most; a divisor of the vocabulary is taken. */
const LONGEST_BLOCK = 64;

/** Consecutive token ids in a block. */
export function blockLength(vocabSize: number): number {
  let length = Math.min(LONGEST_BLOCK, vocabSize);
  while (vocabSize % length !== 0) length--;
  return length;
}

/**
 * Makes outputs of what tokens are drawn from, so that whole rows stay where they are computed.
 *
 * Outputs: `probabilities` (B, V); of each block of consecutive tokens `block_sums` and `block_maxima` (B, N), sum and
 * maximum of theirs; the block that holds the likeliest token, `best_block` int32 (B, 1), with its logits, `best_logits`
 * (B, 1, L).
 *
 * @param logits (B, V), divided by the temperature
 */
export function outputBlockSums(logits: Value): void {
  const { graph, shape } = logits;
  const [batch, vocabSize] = shape as [string, number];
  const length = blockLength(vocabSize);
  const blocks = vocabSize / length;
  const probabilities = softmax(logits);
  const grouped = reshape(probabilities, [batch, blocks, length]);
  const maxima = reduceMax(grouped, -1);
  const best = topK(maxima, 1).indices;
  const firstRow = mul(reshape(iota(graph, batch), [batch, 1]), scalar(graph, 'int32', blocks));
  graph.output('best_block', best);
  graph.output('best_logits', gatherRows(reshape(logits, [mulDims(blocks, batch), length]), add(firstRow, best)));
  graph.output('block_maxima', maxima);
  graph.output('block_sums', reduceSum(grouped, -1));
  graph.output('probabilities', probabilities);
}
