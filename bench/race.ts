import { Contestant } from './contestant.js';
import type { Entry } from './entries.js';
import { Lane } from './lane.js';
import { Peer, type PeerDtype, type PeerOptions } from './peer.js';
import { rowsOf, type Row } from './row.js';
import type { Measurement, Setup, Turn, WorkName } from './work.js';

/** Works of minutes, of which a process of the peer takes most of the machine's memory. */
const APART: readonly WorkName[] = ['grpo'];

/**
 * Measures a work in the forms of some entries, in alternation with the ceiling and the peer, so that what else the
 * machine does meets all.
 *
 * @param entries of one work
 * @returns their rows, and the ceiling of each look in GFLOP/s
 */
export async function race(
  entries: readonly Entry[],
  setup: Setup,
  options: {
    readonly ceiling: Contestant;
    readonly steps: number;
    readonly signal: AbortSignal;
    readonly peer: PeerOptions | undefined;
  },
): Promise<{ rows: Row[]; ceilings: number[] }> {
  const { ceiling, peer, signal } = options;
  const { work } = entries[0]!;
  const apart = APART.includes(work);
  const ours = entries.map(
    ({ quantization, recompute }) =>
      new Lane<Measurement, Contestant>(
        async () => Contestant.start(work, { ...setup, quantization, recompute }, signal),
        apart,
      ),
  );
  const theirs = new Map<PeerDtype, Lane<Turn, Peer>>();
  if (peer !== undefined && setup.csv !== undefined) {
    const given = { ...setup, csv: setup.csv };
    for (const dtype of peer.dtypes) {
      theirs.set(dtype, new Lane(async () => Peer.start(peer, work, dtype, given, signal), apart));
    }
  }
  const lanes = [...ours, ...theirs.values()];
  const descriptions: string[] = [];
  try {
    for (const lane of lanes) await lane.warmUp();
    const ceilings = [(await ceiling.measure()).gflops];
    for (let step = 0; step < options.steps; step++) {
      for (const [i, lane] of ours.entries()) {
        descriptions[i] = (await lane.turn()).description;
        ceilings.push((await ceiling.measure()).gflops);
      }
      for (const lane of theirs.values()) await lane.turn();
    }
    const peers = new Map(Array.from(theirs, ([dtype, { turns }]) => [dtype, turns] as const));
    const rows = entries.flatMap((entry, i) => {
      // Every turn lies between two looks at the ceiling.
      const around = ours[i]!.turns.map((_, step) => {
        const before = step * ours.length + i;
        return (ceilings[before]! + ceilings[before + 1]!) / 2;
      });
      return rowsOf(entry, { description: descriptions[i]!, turns: ours[i]!.turns, ceilings: around, peers });
    });
    return { rows, ceilings };
  } finally {
    for (const lane of lanes) await lane.end();
  }
}
