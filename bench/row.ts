import type { Entry } from './entries.js';
import type { Used } from './messages.js';
import type { PeerDtype } from './peer.js';
import { spreadOf, type Spread } from './statistics.js';
import type { Measurement, Turn } from './work.js';

/** What came of one entry. */
export interface Row {
  readonly work: string;
  readonly description: string;
  /** Median rate, in `unit`; of the rows of starting, milliseconds. */
  readonly ours: number;
  readonly unit: string;
  /** All rates, the one above included. */
  readonly rates: Readonly<Record<string, Spread>>;
  readonly secondsPerStep: Spread;
  /** Processor time of all threads, of the prompt pass too where there is one: on a busy machine it says more than the clock. */
  readonly cpuSecondsPerStep?: Spread;
  readonly steps: number;
  /** Needed operations over time, in GFLOP/s, and as a share of the ceiling measured right before and after. */
  readonly gflops?: Spread;
  readonly share?: Spread;
  /** Largest resident memory of the work's process, in bytes. */
  readonly peakRss?: number;
  /** What the ratio is taken against: the peer's median rate, in the dtype that the entry names or its faster one. */
  readonly peer?: number;
  readonly peerDtype?: PeerDtype;
  readonly peerRate?: Spread;
  /** Our rate over the peer's, repetition by repetition; and aimed at. Of the rows of starting: milliseconds at most. */
  readonly ratio?: number;
  readonly ratioSpread?: Spread;
  readonly target?: number;
  readonly peerPeakRss?: number;
  /** Our peak memory over the peer's, and at most aimed at. */
  readonly memoryRatio?: number;
  readonly memoryTarget?: number;
  /** Beside every dtype in which the peer was measured. */
  readonly peers?: Readonly<Partial<Record<PeerDtype, Beside>>>;
}

interface Beside {
  readonly rate: Spread;
  readonly ratio: Spread;
  readonly peakRss: number;
}

/** What was measured for an entry. */
export interface Measured {
  readonly description: string;
  readonly turns: readonly (Measurement & Used)[];
  /** The float32 matrix product around each turn, in GFLOP/s. */
  readonly ceilings: readonly number[];
  readonly peers: ReadonlyMap<PeerDtype, readonly (Turn & Used)[]>;
}

/** The row of an entry, and those of the parts that it names. */
export function rowsOf(entry: Entry, { description, turns, ceilings, peers }: Measured): Row[] {
  const amounts = Object.keys(turns[0]!.amounts);
  const unit = amounts[0]!;
  const gflops = turns.map(({ flops, seconds }) => flops / seconds / 1e9);
  const whole: Row = {
    work: entry.row,
    description,
    ...ratesOf(turns, amounts),
    cpuSecondsPerStep: spreadOf(turns.map(({ cpuSeconds }) => cpuSeconds)),
    gflops: spreadOf(gflops),
    share: spreadOf(gflops.map((each, i) => each / ceilings[i]!)),
    peakRss: peakOf(turns),
    ...(entry.target === undefined ? {} : { target: entry.target }),
    ...(entry.memoryTarget === undefined ? {} : { memoryTarget: entry.memoryTarget }),
    ...comparison(entry, turns, peers, unit),
  };
  const parts = Object.entries(entry.parts ?? {}).map(([part, target]): Row => {
    const shares = turns.map((turn) => partOf(turn, part));
    const theirs = new Map(
      Array.from(peers, ([dtype, all]) => [dtype, all.map((turn) => partOf(turn, part))] as const),
    );
    return {
      work: `${entry.row}-${part}`,
      description: `the ${part} of it`,
      ...ratesOf(shares, [unit]),
      target,
      ...comparison(entry, shares, theirs, unit),
    };
  });
  return [whole, ...parts];
}

/** A turn as if its part were all of it. */
function partOf<T extends Turn>(turn: T, part: string): T {
  const seconds = turn.parts?.[part];
  if (seconds === undefined) throw new Error(`nobody measured the ${part}`);
  return { ...turn, seconds };
}

const rateOf = ({ amounts, seconds }: Turn, unit: string): number => (amounts[unit] ?? 0) / seconds;
const peakOf = (turns: readonly Used[]): number => Math.max(...turns.map(({ peakBytes }) => peakBytes));

function ratesOf(
  turns: readonly Turn[],
  units: readonly string[],
): Pick<Row, 'ours' | 'unit' | 'rates' | 'secondsPerStep' | 'steps'> {
  const rates = Object.fromEntries(
    units.map((unit): [string, Spread] => [`${unit}/s`, spreadOf(turns.map((turn) => rateOf(turn, unit)))]),
  );
  const unit = `${units[0]!}/s`;
  const secondsPerStep = spreadOf(turns.map(({ seconds }) => seconds));
  return { ours: rates[unit]!.median, unit, rates, secondsPerStep, steps: turns.length };
}

function comparison(
  { against }: Entry,
  ours: readonly (Turn & Used)[],
  theirs: Measured['peers'],
  unit: string,
): Partial<Row> {
  const beside = Array.from(theirs, ([dtype, turns]): [PeerDtype, Beside] => [
    dtype,
    {
      rate: spreadOf(turns.map((turn) => rateOf(turn, unit))),
      ratio: spreadOf(ours.map((turn, i) => rateOf(turn, unit) / rateOf(turns[i]!, unit))),
      peakRss: peakOf(turns),
    },
  ]);
  const faster = [...beside].sort(([, a], [, b]) => b.rate.median - a.rate.median)[0];
  const judged = beside.find(([dtype]) => dtype === against) ?? faster;
  if (judged === undefined) return {};
  const [peerDtype, { rate: peerRate, ratio: ratioSpread, peakRss: peerPeakRss }] = judged;
  return {
    peer: peerRate.median,
    peerDtype,
    peerRate,
    ratio: ratioSpread.median,
    ratioSpread,
    peerPeakRss,
    memoryRatio: peakOf(ours) / peerPeakRss,
    peers: Object.fromEntries(beside),
  };
}
