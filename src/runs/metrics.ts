import { z } from 'zod';
import { UserError } from '../errors.js';
import { readLines, type SteppedRow } from './json-lines.js';

/** One log line: metrics by their names at an optimizer step. */
export interface MetricRow {
  /** Optimizer steps done, from 0. */
  step: number;
  /** Passes over the data, with fractions. */
  epoch: number;
  values: Record<string, number>;
}

// JSON has no NaN and no infinities; the recorded form is their JavaScript name.
const nonFinite = z.enum(['NaN', 'Infinity', '-Infinity']).transform(Number);
const line = z.object({ step: z.int().nonnegative(), epoch: z.number() }).catchall(z.union([z.number(), nonFinite]));

/** The object that stands in `metrics.jsonl`: step, epoch, then the metrics; NaN and infinities as strings. */
export function encodeMetrics({ step, epoch, values }: MetricRow): SteppedRow {
  const row: SteppedRow = { step, epoch };
  for (const [name, value] of Object.entries(values)) {
    if (name === 'step' || name === 'epoch')
      throw new Error(`A metric cannot be called "${name}": it is the line's own.`);
    row[name] = Number.isFinite(value) ? value : String(value);
  }
  return row;
}

/**
 * Reads a `metrics.jsonl`. A torn last line, as a crash leaves it, is not there; no file gives no rows.
 *
 * @throws UserError `metrics.line` naming file and line where a complete line is not a log line
 */
export function readMetrics(path: string): MetricRow[] {
  const rows: MetricRow[] = [];
  for (const { text, number } of readLines(path)) {
    const { step, epoch, ...values } = parseLine(text, `${path}:${number}`);
    rows.push({ step, epoch, values });
  }
  return rows;
}

function parseLine(text: string, where: string): z.infer<typeof line> {
  try {
    return line.parse(JSON.parse(text));
  } catch (error) {
    throw new UserError({
      code: 'metrics.line',
      message: `Not a log line: ${JSON.stringify(text.slice(0, 80))}.`,
      where,
      fix: 'Each line is an object with the numbers step, epoch and the metrics. Remove the line.',
      cause: error,
    });
  }
}
