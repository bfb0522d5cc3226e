import type { Tensor } from '../../graph/tensor.js';
import type { MaskedSequence } from '../../models/packed-tokens.js';
import { countTokens, sum } from '../../training/language.js';
import type { Learner } from '../../training/learner.js';
import type { Metrics } from '../../training/loop.js';
import { dpoFeeds, type ReferenceLogProbs } from './graph.js';

/** The texts of some pairs, the chosen ones first, and what the reference makes of them. */
export interface PairBatch {
  readonly texts: readonly MaskedSequence[];
  readonly reference: readonly ReferenceLogProbs[];
}

/** One optimizer step on micro-batches of pairs: the mean loss over all of them. Metrics are means over micro-batches. */
export async function dpoStep(
  learner: Learner,
  batches: readonly PairBatch[],
  rate: number,
  beta: number,
): Promise<Metrics & { tokens: number }> {
  const pairs = batches.reduce((total, { reference }) => total + reference.length, 0);
  const feeds = batches.map(({ texts, reference }) => learner.accepted(dpoFeeds(texts, reference, pairs)));
  const { reports, gradNorm } = await learner.step(feeds, rate);
  const metrics = reports.map((report, i) => pairMetrics(batches[i]!, report, beta));
  const names = Object.keys(metrics[0]!);
  const mean = (name: string): number => metrics.reduce((total, each) => total + each[name]!, 0) / metrics.length;
  return {
    loss: reports.reduce((total, report) => total + Number(report['loss']!.data[0]), 0),
    grad_norm: gradNorm,
    ...Object.fromEntries(names.map((name) => [name, mean(name)])),
    tokens: countTokens(batches.flatMap(({ texts }) => texts)).tokens,
  };
}

/** TRL's metrics of a micro-batch: rewards are β times the log-ratios, accuracy of tokens is that of the chosen texts. */
export function pairMetrics({ texts, reference }: PairBatch, report: Record<string, Tensor>, beta: number): Metrics {
  const pairs = reference.length;
  const logps = report['logps']!.data as Float32Array;
  const rewards = reference.map(({ chosen, rejected }, i) => ({
    chosen: beta * (logps[i]! - chosen),
    rejected: beta * (logps[pairs + i]! - rejected),
  }));
  const mean = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0) / values.length;
  const chosenTokens = countTokens(texts.slice(0, pairs)).supervised;
  const correct = (report['token_correct']!.data as Float32Array).subarray(0, chosenTokens);
  return {
    'rewards/chosen': mean(rewards.map(({ chosen }) => chosen)),
    'rewards/rejected': mean(rewards.map(({ rejected }) => rejected)),
    'rewards/accuracies': mean(rewards.map(({ chosen, rejected }) => (chosen > rejected ? 1 : 0))),
    'rewards/margins': mean(rewards.map(({ chosen, rejected }) => chosen - rejected)),
    'logps/chosen': mean(logps.subarray(0, pairs)),
    'logps/rejected': mean(logps.subarray(pairs)),
    entropy: sum(report['token_entropy']!) / report['token_entropy']!.data.length,
    mean_token_accuracy: mean(correct),
  };
}
