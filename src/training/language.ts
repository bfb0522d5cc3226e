import type { SftLossType } from '../config/sft.js';
import type { Graph, Value } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import type { EncoderConfig } from '../models/config/model-config.js';
import type { CausalConfig } from '../models/config/causal.js';
import { encoderFeeds, encoderHidden, encoderMaskedLogits } from '../models/encoder.js';
import { causalHidden, causalLogits, causalScores } from '../models/causal.js';
import { packedFeeds, packedTokens, predictionsOf, type MaskedSequence } from '../models/packed-tokens.js';
import { ModelContext, type ContextOptions } from '../nn/context.js';
import { scoresOfLogits } from '../nn/losses.js';
import {
  div,
  exp,
  flattenRows,
  gatherRows,
  mul,
  neg,
  reduceSum,
  stopGradient,
  type TokenScores,
} from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import type { RandomStream } from '../random.js';
import type { TokenBatch } from '../text/collate.js';

/** A graph whose loss is the cross entropy of chosen tokens, or is made from it. */
export interface LanguageGraph {
  readonly graph: Graph;
  readonly context: ModelContext;
  /** Σ loss of the chosen tokens / the feed `divisor`, in nats. */
  readonly loss: Value;
}

export interface LanguageOptions extends ContextOptions {
  /** Also `token_entropy` and `token_correct`, which cost several passes over the logits. */
  readonly statistics?: boolean;
  /**
   * `nll` (the default): cross entropy. `dft`: each token's times its probability, through which no gradient flows
   * (dynamic fine-tuning; Wu et al., 2025, https://arxiv.org/abs/2508.05629).
   */
  readonly lossType?: SftLossType;
}

/**
 * The loss of `targets` at `rows` of all tokens. Outputs: `loss`, and for logs `token_loss`
 * and, where asked for, `token_entropy` and `token_correct`, each of shape (N).
 */
function withLoss(
  context: ModelContext,
  scoresOf: (rows: Value, targets: Value) => TokenScores,
  { statistics = false, lossType = 'nll' }: LanguageOptions,
): LanguageGraph {
  const { graph } = context;
  const rows = graph.input('rows', 'int32', ['N']);
  const targets = graph.input('targets', 'int32', ['N']);
  const divisor = graph.input('divisor', 'float32', []);
  const { logProbs, entropies, correct } = scoresOf(rows, targets);
  const crossEntropy = neg(logProbs);
  const tokenLoss = lossType === 'nll' ? crossEntropy : mul(crossEntropy, stopGradient(exp(logProbs)));
  const loss = div(reduceSum(tokenLoss), divisor);
  graph.output('loss', loss);
  graph.output('token_loss', tokenLoss);
  if (statistics) {
    graph.output('token_entropy', entropies);
    graph.output('token_correct', correct);
  }
  return { graph, context, loss };
}

/** Next-token prediction with a causal model, whose head is frozen where an adapter learns. */
export function causalGraph(config: CausalConfig, options: LanguageOptions): LanguageGraph {
  const context = new ModelContext(newGraph(), options);
  const tokens = packedTokens(context);
  const scores = (rows: Value, targets: Value): TokenScores => {
    const { hidden } = causalHidden(context, config, tokens, rows);
    return options.lora === undefined
      ? scoresOfLogits(causalLogits(context, config, hidden), targets)
      : causalScores(context, config, hidden, targets);
  };
  return withLoss(context, scores, options);
}

/** Masked-token prediction with an encoder. */
export function maskedGraph(config: EncoderConfig, options: LanguageOptions): LanguageGraph {
  const context = new ModelContext(newGraph(), options);
  const hidden = flattenRows(encoderHidden(context, config));
  const scores = (rows: Value, targets: Value): TokenScores =>
    scoresOfLogits(encoderMaskedLogits(context, config, gatherRows(hidden, rows)), targets);
  return withLoss(context, scores, options);
}

/** Tokens of a batch, and those of them that a causal loss learns. */
export const countTokens = (batch: readonly MaskedSequence[]): { tokens: number; supervised: number } => ({
  tokens: batch.reduce((total, { inputIds }) => total + inputIds.length, 0),
  supervised: predictionsOf(batch).targets.length,
});

/** Feeds of `causalGraph`; `divisor` counts the tokens that the step's loss is a mean over. */
export function causalLossFeeds(batch: readonly MaskedSequence[], divisor: number): Record<string, Tensor> {
  const { rows, targets } = predictionsOf(batch);
  return { ...packedFeeds(batch.map(({ inputIds }) => inputIds)), ...lossFeeds(rows, targets, divisor) };
}

export interface MaskingRule {
  /** Share of tokens to be guessed. */
  readonly probability: number;
  readonly maskId: number;
  readonly vocabSize: number;
  /** Ids that are never chosen: [CLS], [SEP], padding. */
  readonly special: ReadonlySet<number>;
}

/** What of a batch goes through the model at once. */
export interface BatchPiece {
  readonly feeds: Readonly<Record<string, Tensor>>;
  /** Where in the batch its rows stand. */
  readonly rows: readonly number[];
}

/**
 * Feeds of `maskedGraph`: of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay (Devlin et al., 2019).
 * At least one token is chosen. The batch comes in pieces of `atOnce` rows, whose losses sum to its own; what is chosen
 * does not depend on where it is cut, and a piece in which nothing is guessed is left out.
 */
export function maskedLossFeeds(
  config: EncoderConfig,
  batch: TokenBatch,
  rule: MaskingRule,
  random: RandomStream,
  atOnce = batch.batch,
): BatchPiece[] {
  const inputIds = Int32Array.from(batch.inputIds);
  const candidates: number[] = [];
  for (const [at, id] of inputIds.entries())
    if (batch.attentionMask[at] === 1 && !rule.special.has(id)) candidates.push(at);
  if (candidates.length === 0) throw new RangeError('the batch has no token that could be masked');
  let chosen = candidates.filter(() => random.uniform() < rule.probability);
  if (chosen.length === 0) chosen = [candidates[random.integer(candidates.length)]!];
  const targets = chosen.map((at) => batch.inputIds[at]!);
  for (const at of chosen) {
    const fate = random.uniform();
    if (fate < 0.8) inputIds[at] = rule.maskId;
    else if (fate < 0.9) inputIds[at] = random.integer(rule.vocabSize);
  }
  const pieces: BatchPiece[] = [];
  for (let first = 0; first < batch.batch; first += atOnce) {
    const [start, end] = [first * batch.length, Math.min(first + atOnce, batch.batch) * batch.length];
    const own = [...chosen.keys()].filter((i) => chosen[i]! >= start && chosen[i]! < end);
    if (own.length === 0) continue;
    const rows = {
      batch: (end - start) / batch.length,
      length: batch.length,
      inputIds: inputIds.slice(start, end),
      attentionMask: batch.attentionMask.slice(start, end),
    };
    const [places, guessed] = [own.map((i) => chosen[i]! - start), own.map((i) => targets[i]!)];
    pieces.push({
      feeds: { ...encoderFeeds(config, rows), ...lossFeeds(places, guessed, chosen.length) },
      rows: Array.from({ length: rows.batch }, (_, row) => first + row),
    });
  }
  return pieces;
}

function lossFeeds(rows: readonly number[], targets: readonly number[], divisor: number): Record<string, Tensor> {
  return {
    rows: tensor('int32', [rows.length], rows),
    targets: tensor('int32', [targets.length], targets),
    divisor: tensor('float32', [], [divisor]),
  };
}

export const sum = (values: Tensor): number => {
  let total = 0;
  for (const value of values.data as Float32Array) total += value;
  return total;
};
