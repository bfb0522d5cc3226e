import { readMetrics } from '../../runs/metrics.js';
import type { ReportPoint } from './input.js';

/** Metric name → its points in order of steps. */
export type MetricSeries = Record<string, ReportPoint[]>;

/**
 * Reads a run's `metrics.jsonl` into one series a metric. A loss that was NaN leaves a gap. Where a resumed run logged
 * a step again, the later line counts.
 *
 * @throws UserError when a line is not a log line
 */
export function readMetricSeries(path: string): MetricSeries {
  const byName = new Map<string, Map<number, number>>();
  for (const { step, values } of readMetrics(path)) {
    for (const [name, value] of Object.entries(values)) {
      if (!Number.isFinite(value)) continue;
      byName.set(name, (byName.get(name) ?? new Map<number, number>()).set(step, value));
    }
  }
  return Object.fromEntries(
    Array.from(byName, ([name, points]) => [
      name,
      Array.from(points, ([step, value]) => ({ step, value })).sort((a, b) => a.step - b.step),
    ]),
  );
}
