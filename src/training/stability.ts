import { z } from 'zod';
import type { TrainingSection } from '../config/training.js';

export type StabilitySettings = TrainingSection['stability'];

/** What a run remembers of steps that went wrong; part of its checkpoints. */
export const stabilityState = z.strictObject({
  /** Steps that are not in the weights: skipped, or undone by a rollback. */
  skipped: z.int().default(0),
  /** Steps without a finite loss and gradient since the last one with. */
  skippedInARow: z.int().default(0),
  spikes: z.int().default(0),
  rollbacks: z.int().default(0),
  /** Rollbacks since there was another checkpoint to go back to. */
  rollbacksInARow: z.int().default(0),
  /** Losses of the newest steps, oldest first. */
  recent: z.array(z.number()).default([]),
  /** Step of the checkpoint that a rollback goes back to. */
  anchor: z.int().nullable().default(null),
});
export type StabilityState = z.infer<typeof stabilityState>;

/** A normal distribution's standard deviation over its median absolute deviation. */
const NORMAL = 1.4826;
/** Least deviation taken as the losses' own, in nats and as a share of the median: some losses hardly vary at all. */
const LEAST_DEVIATION = 0.02;

/**
 * Whether a loss lies further above the median of the newest ones than `spikeThreshold` robust standard deviations
 * (median absolute deviation); never before half a window of losses is known.
 */
export function isSpike(
  loss: number,
  recent: readonly number[],
  { spikeThreshold, spikeWindow }: Pick<StabilitySettings, 'spikeThreshold' | 'spikeWindow'>,
): boolean {
  if (recent.length < spikeWindow / 2) return false;
  const middle = median(recent);
  const spread = NORMAL * median(recent.map((value) => Math.abs(value - middle)));
  const deviation = Math.max(spread, LEAST_DEVIATION * Math.max(1, Math.abs(middle)));
  return loss - middle > spikeThreshold * deviation;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Counts for the log line; none while nothing went wrong. */
export function stabilityMetrics({ skipped, spikes, rollbacks }: StabilityState): Record<string, number> {
  const counts = { skipped_steps: skipped, loss_spikes: spikes, rollbacks };
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}
