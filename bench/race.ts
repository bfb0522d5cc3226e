import { Contestant } from './contestant.js';
import type { Used } from './messages.js';
import { Peer, PEER_DTYPES, type PeerDtype, type PeerOptions } from './peer.js';
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
  /** The peer's median rate in its better dtype, and ours over it, repetition by repetition; where a peer was given. */
  readonly peer?: number;
  readonly peerDtype?: PeerDtype;
  readonly peerRate?: Spread;
  readonly ratio?: number;
  readonly ratioSpread?: Spread;
  readonly target?: number;
  readonly peerPeakRss?: number;
}

/** How many times the peer's rate is aimed at. */
const targetOf = (name: WorkName, { quantization }: Setup): number | undefined =>
  ({ ceiling: undefined, sft: quantization === 'float32' ? 4 : 8, rm: 2, grpo: 10, 'generate-1': 8, 'generate-64': 6 })[
    name
  ];

const gflopsOf = ({ flops, seconds }: Measurement): number => flops / seconds / 1e9;

/**
 * Measures a work in alternation with the ceiling, so that what else the machine does meets both.
 *
 * @returns the work's row, and the ceiling of each of its looks in GFLOP/s
 */
export async function race(
  name: WorkName,
  setup: Setup,
  options: {
    readonly ceiling: Contestant;
    readonly steps: number;
    readonly signal: AbortSignal;
    readonly peer: PeerOptions | undefined;
  },
): Promise<{ row: Row; ceilings: number[] }> {
  const work = await Contestant.start(name, setup, options.signal);
  const peers: Peer[] = [];
  try {
    if (options.peer !== undefined && setup.csv !== undefined) {
      const given = { ...setup, csv: setup.csv };
      for (const dtype of PEER_DTYPES) peers.push(await Peer.start(options.peer, name, dtype, given, options.signal));
    }
    // Takes memory and fills caches.
    await work.measure();
    for (const peer of peers) await peer.measure(name);
    const measured: (Measurement & Used)[] = [];
    const theirs = peers.map((): PeerTurn[] => []);
    const ceilings = [gflopsOf(await options.ceiling.measure())];
    for (let i = 0; i < options.steps; i++) {
      measured.push(await work.measure());
      ceilings.push(gflopsOf(await options.ceiling.measure()));
      for (const [k, peer] of peers.entries()) theirs[k]!.push(await peer.measure(name));
    }
    const row = rowOf(name, work, measured, ceilings);
    const beside = peers.map((peer, k) => comparison(peer.dtype, measured, theirs[k]!));
    const better = beside.reduce<Comparison | undefined>(
      (best, each) => (best !== undefined && best.peer >= each.peer ? best : each),
      undefined,
    );
    const target = targetOf(name, setup);
    return { row: { ...row, ...better, ...(target === undefined ? {} : { target }) }, ceilings };
  } finally {
    for (const each of [work, ...peers]) await each.end();
  }
}

type PeerTurn = Awaited<ReturnType<Peer['measure']>>;
type Comparison = Required<Pick<Row, 'peer' | 'peerDtype' | 'peerRate' | 'ratio' | 'ratioSpread' | 'peerPeakRss'>>;

function comparison(dtype: PeerDtype, ours: readonly Measurement[], theirs: readonly PeerTurn[]): Comparison {
  const unit = Object.keys(ours[0]!.amounts)[0]!;
  const rateOf = ({ amounts, seconds }: Omit<Measurement, 'flops'>): number => (amounts[unit] ?? 0) / seconds;
  const peerRate = spreadOf(theirs.map(rateOf));
  const ratioSpread = spreadOf(ours.map((each, i) => rateOf(each) / rateOf(theirs[i]!)));
  const peerPeakRss = theirs.at(-1)!.peakBytes;
  return { peer: peerRate.median, peerDtype: dtype, peerRate, ratio: ratioSpread.median, ratioSpread, peerPeakRss };
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
