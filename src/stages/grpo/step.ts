import type { Tensor } from '../../graph/tensor.js';
import type { LossScale } from '../../nn/grpo/token-weights.js';
import type { Learner } from '../../training/learner.js';
import type { Metrics } from '../../training/loop.js';
import { learnedTokens, microBatches, type BatchSettings, type MicroBatch, type RolloutSample } from './batch.js';
import { lossMetrics } from './metrics.js';

/** How a step turns batches into a loss; how many batches it has is seen from them. */
export type StepSettings = Omit<BatchSettings, 'scale'> & { readonly scale: Omit<LossScale, 'accumulation'> };

type Report = Readonly<Record<string, Tensor>>;

export interface StepResult {
  readonly metrics: Metrics;
  /** Mean entropy of the tokens that an entropy bonus acts on, in nats; 0 where there are none. */
  readonly activeEntropy: number;
}

/**
 * One optimizer step on batches of completions, each cut into micro-batches where memory asks for it. The loss is the sum
 * of the micro-batches' losses, which their token weights have scaled; other metrics are means over the batches.
 */
export async function grpoStep(
  learner: Learner,
  batches: readonly (readonly RolloutSample[])[],
  rate: number,
  settings: StepSettings,
): Promise<StepResult> {
  const scale = { ...settings.scale, accumulation: batches.length };
  const parts = batches.map((batch) => microBatches(batch, { ...settings, scale }));
  const { reports, gradNorm } = await learner.step(
    parts.flat().map(({ feeds }) => learner.accepted(feeds)),
    rate,
  );
  const total = (name: string): number => reports.reduce((sum, report) => sum + Number(report[name]!.data[0]), 0);
  const rest = [...reports];
  const measured = batches.map((batch, i) => ({ batch, ...tokensOf(parts[i]!, rest.splice(0, parts[i]!.length)) }));
  const metrics = measured.map(({ batch, logprobs, entropies }) =>
    lossMetrics(batch, logprobs, entropies, settings.loss),
  );
  const mean = Object.fromEntries(
    Object.keys(metrics[0]!).map((name) => [
      name,
      metrics.reduce((sum, each) => sum + each[name]!, 0) / metrics.length,
    ]),
  );
  const active = measured.flatMap(({ entropies, kept }) => entropies.filter((_, t) => kept?.[t] !== 0));
  return {
    metrics: {
      loss: total('loss'),
      grad_norm: gradNorm,
      ...(settings.loss.entropyBonus ? { policy_loss: total('policy_loss') } : {}),
      ...mean,
    },
    activeEntropy: active.reduce((a, b) => a + b, 0) / Math.max(active.length, 1),
  };
}

/** What the graph reports of a batch's learned tokens; micro-batches without any have tokens that do not count. */
function tokensOf(
  parts: readonly MicroBatch[],
  reports: readonly Report[],
): { logprobs: number[]; entropies: number[]; kept: number[] | undefined } {
  const learned = reports.filter((_, i) => parts[i]!.samples.some((sample) => learnedTokens(sample) > 0));
  const join = (name: string): number[] => learned.flatMap((report) => [...(report[name]!.data as Float32Array)]);
  const kept = reports.some((report) => 'kept' in report) ? join('kept') : undefined;
  return { logprobs: join('logprobs'), entropies: join('entropies'), kept };
}
