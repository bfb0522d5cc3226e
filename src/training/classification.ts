import type { Graph, Value } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { classifierFeeds, classifierLogits } from '../models/classifier.js';
import type { ModelConfig } from '../models/config/model-config.js';
import type { PaddedTokens } from '../models/padded-tokens.js';
import { ModelContext, type LoraSettings, type Precision } from '../nn/context.js';
import { crossEntropy, rDrop } from '../nn/losses.js';
import { mul, slice } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { collateTexts } from '../text/collate.js';
import { partsByLength } from '../text/by-length.js';
import { dropsOut } from './dropout.js';

/** A training graph of a classifier; reads the feeds of `dropoutFeeds` where the model drops anything out. */
export interface ClassificationGraph {
  readonly graph: Graph;
  readonly context: ModelContext;
  readonly loss: Value;
}

/** How often every row goes through the model: twice with R-Drop, unless nothing drops out and both passes would be one. */
export const passesOf = (config: ModelConfig, rdropAlpha: number, lora?: LoraSettings): 1 | 2 =>
  rdropAlpha > 0 && dropsOut(config, lora) ? 2 : 1;

/**
 * Cross entropy of a classifier, with R-Drop where `rdropAlpha` is above 0: every row goes through twice in
 * one batch, each time under dropout of its own.
 *
 * Outputs: `loss`; `ce`, the cross entropy in it; with R-Drop `rdrop_kl`, the symmetric KL halved; all of these times
 * the feed `share`, so that they sum over the parts of a batch; `logits` (passes·B, labels), pass after pass.
 */
export function classificationGraph(
  config: ModelConfig,
  settings: { readonly rdropAlpha: number; readonly recompute?: boolean; readonly precision?: Precision },
  lora?: LoraSettings,
): ClassificationGraph {
  const { rdropAlpha, recompute, precision } = settings;
  const copies = passesOf(config, rdropAlpha, lora);
  const context = new ModelContext(newGraph(), {
    training: dropsOut(config, lora),
    copies,
    recompute,
    precision,
    ...(lora !== undefined && { lora }),
  });
  const { graph } = context;
  const labels = graph.input('labels', 'int32', ['B']);
  const share = graph.input('share', 'float32', []);
  const logits = classifierLogits(context, config);
  if (copies === 1) {
    const loss = mul(crossEntropy(logits, labels), share);
    for (const [name, value] of Object.entries({ loss, ce: loss, logits })) graph.output(name, value);
    return { graph, context, loss };
  }
  const [first, second] = [slice(logits, 0, 0, 'B'), slice(logits, 0, 'B', '2*B')];
  const parts = rDrop(first, second, labels, rdropAlpha);
  const loss = mul(parts.loss, share);
  const outputs = { loss, ce: mul(parts.crossEntropy, share), rdrop_kl: mul(parts.kl, share), logits };
  for (const [name, value] of Object.entries(outputs)) graph.output(name, value);
  return { graph, context, loss };
}

/**
 * Feeds of `classificationGraph` except those of dropout.
 *
 * @param share of the batch's rows that these are
 */
export const classificationFeeds = (
  config: ModelConfig,
  tokens: PaddedTokens,
  labels: readonly number[],
  share = 1,
): Record<string, Tensor> => ({
  ...classifierFeeds(config, tokens),
  labels: tensor('int32', [labels.length], labels),
  share: tensor('float32', [], [share]),
});

/** Most tokens that go through the model at once: as set, or 512, and room for the longest text in any case. */
export const tokensAtOnceOf = (
  { tokensAtOnce, maxLength }: { readonly tokensAtOnce?: number | undefined; readonly maxLength: number },
  passes: number,
): number => tokensAtOnce ?? Math.max(512, passes * maxLength);

/** What goes through the model at once. */
export interface ClassificationPart {
  readonly feeds: Record<string, Tensor>;
  readonly labels: readonly number[];
  readonly tokens: PaddedTokens;
  /** Where in the batch its rows stand. */
  readonly rows: readonly number[];
}

/**
 * A batch in parts of similar length, whose losses and gradients sum to those of the whole.
 *
 * @param settings.tokensAtOnce most tokens of one part, padding and all passes included
 */
export function classificationParts(
  config: ModelConfig,
  batch: { readonly sequences: readonly (readonly number[])[]; readonly labels: readonly number[] },
  settings: { readonly padId: number; readonly passes: number; readonly tokensAtOnce: number },
): ClassificationPart[] {
  const lengths = batch.sequences.map(({ length }) => length);
  return partsByLength(lengths, settings.tokensAtOnce / settings.passes).map((rows) => {
    const tokens = collateTexts(
      rows.map((row) => batch.sequences[row]!),
      { padId: settings.padId },
    );
    const labels = rows.map((row) => batch.labels[row]!);
    const share = rows.length / lengths.length;
    return { feeds: classificationFeeds(config, tokens, labels, share), labels, tokens, rows };
  });
}

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
