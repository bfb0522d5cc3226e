import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { UserError } from '../../errors.js';
import type { ReportPoint } from './input.js';

/** Metric name → its points in order of steps. */
export type MetricSeries = Record<string, ReportPoint[]>;

const Line = z.looseObject({ step: z.number() });

/**
 * Reads a run's `metrics.jsonl` into one series a metric. Whatever is not a finite number is left out (`step` itself
 * too, and a loss that was NaN leaves a gap). Where a resumed run logged a step again, the later line counts. A last
 * line that was cut off while being written is ignored.
 *
 * @throws UserError when the file is missing, or a line is not a JSON object with a numeric `step`
 */
export async function readMetrics(path: string): Promise<MetricSeries> {
  const byName = new Map<string, Map<number, number>>();
  let broken: UserError | undefined;
  let number = 0;
  try {
    for await (const line of createInterface({ input: createReadStream(path, 'utf8'), crlfDelay: Infinity })) {
      number += 1;
      if (broken !== undefined) throw broken;
      if (line.trim() === '') continue;
      const row = parseLine(line);
      if (row === undefined) {
        broken = new UserError({
          code: 'report.bad-metrics-line',
          message: `a line of the metrics is not a JSON object with a numeric "step": ${line.slice(0, 60)}`,
          where: `${path}:${number}`,
          fix: 'delete that line',
        });
        continue;
      }
      for (const [name, value] of Object.entries(row)) {
        if (name === 'step' || typeof value !== 'number' || !Number.isFinite(value)) continue;
        const points = byName.get(name) ?? new Map<number, number>();
        byName.set(name, points.set(row.step, value));
      }
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError({
      code: 'report.no-metrics',
      message: `cannot read the metrics: ${error instanceof Error ? error.message : String(error)}`,
      where: path,
      fix: 'name the folder of a run that has logged at least once',
      cause: error,
    });
  }
  return Object.fromEntries(
    [...byName].map(([name, points]) => [
      name,
      [...points].map(([step, value]) => ({ step, value })).sort((a, b) => a.step - b.step),
    ]),
  );
}

function parseLine(line: string): z.output<typeof Line> | undefined {
  try {
    return Line.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}
