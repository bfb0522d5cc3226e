import type { Graph, Value } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { classifierFeeds, classifierLogits } from '../models/classifier.js';
import type { ModelConfig } from '../models/config/model-config.js';
import type { PaddedTokens } from '../models/padded-tokens.js';
import { ModelContext } from '../nn/context.js';
import { crossEntropy, rDrop } from '../nn/losses.js';
import { slice } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { dropsOut } from './dropout.js';

/** A training graph of a classifier; reads `dropout_seed` where the model drops anything out. */
export interface ClassificationGraph {
  readonly graph: Graph;
  readonly context: ModelContext;
  readonly loss: Value;
}

/**
 * Cross entropy of a classifier, with R-Drop where `rdropAlpha` is above 0: every row goes through twice in
 * one batch, each time under dropout of its own. Without any dropout the two passes would be one, and one is made.
 *
 * Outputs: `loss`; `ce`, the cross entropy in it; with R-Drop `rdrop_kl`, the symmetric KL halved; `logits` (passes·B,
 * labels), pass after pass.
 */
export function classificationGraph(
  config: ModelConfig,
  { rdropAlpha, recompute }: { readonly rdropAlpha: number; readonly recompute?: boolean },
): ClassificationGraph {
  const training = dropsOut(config);
  const context = new ModelContext(newGraph(), { training, recompute });
  const { graph } = context;
  const labels = graph.input('labels', 'int32', ['B']);
  if (rdropAlpha === 0 || !training) {
    const logits = classifierLogits(context, config);
    const loss = crossEntropy(logits, labels);
    for (const [name, value] of Object.entries({ loss, ce: loss, logits })) graph.output(name, value);
    return { graph, context, loss };
  }
  const logits = classifierLogits(context, config, 2);
  const [first, second] = [slice(logits, 0, 0, 'B'), slice(logits, 0, 'B', '2*B')];
  const parts = rDrop(first, second, labels, rdropAlpha);
  const outputs = { loss: parts.loss, ce: parts.crossEntropy, rdrop_kl: parts.kl, logits };
  for (const [name, value] of Object.entries(outputs)) graph.output(name, value);
  return { graph, context, loss: parts.loss };
}

/** Feeds of `classificationGraph` except the dropout seed. */
export const classificationFeeds = (
  config: ModelConfig,
  tokens: PaddedTokens,
  labels: readonly number[],
): Record<string, Tensor> => ({
  ...classifierFeeds(config, tokens),
  labels: tensor('int32', [labels.length], labels),
});

/** Share of rows whose largest logit is that of their label; logits (passes·B, labels), every pass counted. */
export function accuracyOf(logits: Tensor, labels: readonly number[]): number {
  const classes = logits.shape[1]!;
  const rows = logits.shape[0]!;
  let right = 0;
  for (let row = 0; row < rows; row++) {
    const values = (logits.data as Float32Array).subarray(row * classes, (row + 1) * classes);
    if (values[labels[row % labels.length]!] === Math.max(...values)) right++;
  }
  return right / rows;
}
