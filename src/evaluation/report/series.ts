import type { ReportPoint } from './input.js';

/** At most `limit` points: means of equally many neighbours, so that long runs keep their shape and files stay small. */
export function thin(points: readonly ReportPoint[], limit: number): ReportPoint[] {
  if (points.length <= limit) return [...points];
  const size = Math.ceil(points.length / limit);
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const bucket = points.slice(i * size, (i + 1) * size);
    return { step: mean(bucket.map(({ step }) => step)), value: mean(bucket.map(({ value }) => value)) };
  });
}

/** Centred moving average over `window` points (odd); at the ends over those of them that exist. */
export function smooth(points: readonly ReportPoint[], window: number): ReportPoint[] {
  const half = Math.floor(window / 2);
  return points.map(({ step }, i) => ({
    step,
    value: mean(points.slice(Math.max(0, i - half), i + half + 1).map(({ value }) => value)),
  }));
}

/** The curve in one line of block characters; empty without points. */
export function sparkline(points: readonly ReportPoint[], width = 24): string {
  const values = thin(points, width).map(({ value }) => value);
  const low = Math.min(...values);
  const range = Math.max(...values) - low;
  const blocks = '▁▂▃▄▅▆▇█';
  return values.map((value) => blocks[range === 0 ? 3 : Math.round(((value - low) / range) * 7)]!).join('');
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Digits of the largest value that a chart tells apart; an axis cannot be divided much finer. */
const DIGITS = 9;
/** What is smaller than this is zero: a KL of 2e-14 is the rounding of one. */
const SMALLEST = 1e-10;

/** Curves of one chart with values that an axis can be divided by: what lies below the digits of the largest is rounded. */
export function distinguishable(curves: readonly (readonly ReportPoint[])[]): ReportPoint[][] {
  const largest = curves.flat().reduce((most, { value }) => Math.max(most, Math.abs(value)), 0);
  const decimals = Math.max(0, DIGITS - 1 - Math.floor(Math.log10(largest)));
  const rounded = (value: number): number => (largest < SMALLEST ? 0 : Number(value.toFixed(decimals)));
  return curves.map((points) => points.map(({ step, value }) => ({ step, value: rounded(value) })));
}
