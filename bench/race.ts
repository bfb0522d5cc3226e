import { Contestant } from './contestant.js';
import type { Used } from './messages.js';
import { spreadOf, type Spread } from './statistics.js';
import type { Measurement, Setup, WorkName } from './work.js';

/** What came of one work. */
export interface Row {
  readonly work: WorkName;
  readonly description: string;
  /** Median rate, in `unit`. */
  readonly ours: number;
  readonly unit: string;
  /** All rates, the one above included. */
  readonly rates: Readonly<Record<string, Spread>>;
  readonly secondsPerStep: Spread;
  /** Processor time of all threads, of the prompt pass too where there is one: on a busy machine it says more than the clock. */
  readonly cpuSecondsPerStep: Spread;
  readonly steps: number;
  /** Needed operations over time, in GFLOP/s, and as a share of the ceiling measured right before and after. */
  readonly gflops: Spread;
  readonly share: Spread;
  /** Largest resident memory of the work's process, in bytes. */
  readonly peakRss: number;
}

const gflopsOf = ({ flops, seconds }: Measurement): number => flops / seconds / 1e9;

/**
 * Measures a work in alternation with the ceiling, so that what else the machine does meets both.
 *
 * @returns the work's row, and the ceiling of each of its looks in GFLOP/s
 */
export async function race(
  name: WorkName,
  setup: Setup,
  options: { readonly ceiling: Contestant; readonly steps: number; readonly signal: AbortSignal },
): Promise<{ row: Row; ceilings: number[] }> {
  const work = await Contestant.start(name, setup, options.signal);
  try {
    // Takes memory and fills caches.
    await work.measure();
    const measured: (Measurement & Used)[] = [];
    const ceilings = [gflopsOf(await options.ceiling.measure())];
    for (let i = 0; i < options.steps; i++) {
      measured.push(await work.measure());
      ceilings.push(gflopsOf(await options.ceiling.measure()));
    }
    return { row: rowOf(name, work, measured, ceilings), ceilings };
  } finally {
    await work.end();
  }
}

function rowOf(
  name: WorkName,
  work: Contestant,
  measured: readonly (Measurement & Used)[],
  ceilings: readonly number[],
): Row {
  const units = Object.keys(measured[0]!.amounts);
  const rate = (unit: string): Spread => spreadOf(measured.map(({ amounts, seconds }) => amounts[unit]! / seconds));
  const rates = Object.fromEntries(units.map((unit): [string, Spread] => [`${unit}/s`, rate(unit)]));
  const [unit, judged] = Object.entries(rates)[0]!;
  return {
    work: name,
    description: work.description,
    ours: judged.median,
    unit,
    rates,
    secondsPerStep: spreadOf(measured.map(({ seconds }) => seconds)),
    cpuSecondsPerStep: spreadOf(measured.map(({ cpuSeconds }) => cpuSeconds)),
    steps: measured.length,
    gflops: spreadOf(measured.map(gflopsOf)),
    share: spreadOf(measured.map((each, i) => (2 * gflopsOf(each)) / (ceilings[i]! + ceilings[i + 1]!))),
    peakRss: measured.at(-1)!.peakBytes,
  };
}
