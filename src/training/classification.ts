import type { Graph, Value } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import type { DebertaV2Config } from '../models/config/deberta-v2.js';
import { debertaV2Classify, debertaV2Hidden, encoderInputs } from '../models/deberta-v2.js';
import { encoderFeeds, type PaddedTokens } from '../models/feeds.js';
import { ModelContext } from '../nn/context.js';
import { crossEntropy, rDrop } from '../nn/losses.js';
import { concat, slice } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { dropsOut } from './dropout.js';

/** A training graph of a classifier; reads `dropout_seed` where the model drops anything out. */
export interface ClassificationGraph {
  readonly graph: Graph;
  readonly context: ModelContext;
  readonly loss: Value;
}

/**
 * Cross entropy of a DeBERTa-v2 classifier, with R-Drop where `rdropAlpha` is above 0: every row goes through twice in
 * one batch, each time under dropout of its own. Without any dropout the two passes would be one, and one is made.
 *
 * Outputs: `loss`; `ce`, the cross entropy in it; with R-Drop `rdrop_kl`, the symmetric KL halved; `logits` (passes·B,
 * labels), pass after pass.
 */
export function classificationGraph(
  config: DebertaV2Config,
  { rdropAlpha }: { readonly rdropAlpha: number },
): ClassificationGraph {
  const training = dropsOut(config);
  const context = new ModelContext(newGraph(), { training });
  const { graph } = context;
  const inputs = encoderInputs(context);
  const labels = graph.input('labels', 'int32', ['B']);
  const classify = (copies: number): Value => {
    const twin = (x: Value): Value => concat(Array<Value>(copies).fill(x), 0);
    const { inputIds, attentionMask } = inputs;
    const doubled = { ...inputs, inputIds: twin(inputIds), attentionMask: twin(attentionMask) };
    return debertaV2Classify(context, config, debertaV2Hidden(context, config, doubled).hidden);
  };
  if (rdropAlpha === 0 || !training) {
    const logits = classify(1);
    const loss = crossEntropy(logits, labels);
    for (const [name, value] of Object.entries({ loss, ce: loss, logits })) graph.output(name, value);
    return { graph, context, loss };
  }
  const logits = classify(2);
  const [first, second] = [slice(logits, 0, 0, 'B'), slice(logits, 0, 'B', '2*B')];
  const parts = rDrop(first, second, labels, rdropAlpha);
  const outputs = { loss: parts.loss, ce: parts.crossEntropy, rdrop_kl: parts.kl, logits };
  for (const [name, value] of Object.entries(outputs)) graph.output(name, value);
  return { graph, context, loss: parts.loss };
}

/** Feeds of `classificationGraph` except the dropout seed. */
export const classificationFeeds = (
  config: DebertaV2Config,
  tokens: PaddedTokens,
  labels: readonly number[],
): Record<string, Tensor> => ({
  ...encoderFeeds(config, tokens),
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
