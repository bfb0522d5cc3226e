import type { Machine } from './machine.js';
import type { Row } from './race.js';
import type { Spread } from './statistics.js';

/** Everything that a benchmark found; `--json` writes it. */
export interface Findings {
  readonly machine: Machine;
  readonly threads: number;
  /** Median of the float32 matrix product over the whole run, in GFLOP/s, and its spread. */
  readonly ceiling: number;
  readonly ceilingSpread: Spread;
  readonly rows: readonly Row[];
}

/** The findings for people: where, then a table, then what each row is. */
export function formatFindings({ machine, threads, ceilingSpread, rows }: Findings): string {
  const { cpu, cores, memoryBytes, system, loadBefore, versions } = machine;
  const table = [
    ['work', 'rate', 'unit', 's/step', 'min–max', 'cpu s/step', 'steps', 'GFLOP/s', 'of ceiling', 'peak RSS'],
    ...rows.map(({ work, ours, unit, secondsPerStep: seconds, cpuSecondsPerStep, steps, gflops, share, peakRss }) => [
      work,
      significant(ours),
      unit,
      significant(seconds.median),
      `${significant(seconds.min)}–${significant(seconds.max)}`,
      significant(cpuSecondsPerStep.median),
      String(steps),
      significant(gflops.median),
      `${(share.median * 100).toFixed(0)} %`,
      `${(peakRss / 2 ** 20).toFixed(0)} MiB`,
    ]),
  ];
  return [
    `${cpu}, ${cores} cores, ${(memoryBytes / 2 ** 30).toFixed(0)} GiB, ${system}, load ${loadBefore.toFixed(1)} before the start`,
    `duanzi ${versions.duanzi}, Node ${versions.node}, ONNX Runtime ${versions.onnxruntime ?? 'unknown'}, ${threads} threads`,
    `matmul ceiling, float32: ${significant(ceilingSpread.median)} GFLOP/s (${significant(ceilingSpread.min)}–${significant(ceilingSpread.max)})`,
    '',
    ...aligned(table),
    '',
    ...rows.flatMap(({ work, description, rates, ...beside }) => [
      `${work}: ${description}`,
      ...peerLines(beside),
      `  ${Object.entries(rates)
        .map(([unit, { median }]) => `${significant(median)} ${unit}`)
        .join(', ')}`,
    ]),
  ].join('\n');
}

function peerLines({
  peer,
  peerDtype,
  ratio,
  ratioSpread,
  target,
  peerPeakRss,
  unit,
}: Omit<Row, 'work' | 'description' | 'rates'>): string[] {
  if (peer === undefined || ratio === undefined || ratioSpread === undefined || peerPeakRss === undefined) return [];
  const range = `${significant(ratioSpread.min)}–${significant(ratioSpread.max)}`;
  const aim = target === undefined ? '' : `, target ${target}×`;
  return [
    `  ${significant(ratio)}× the peer's ${significant(peer)} ${unit} in ${peerDtype ?? ''} (${range}${aim}), which took ${(peerPeakRss / 2 ** 20).toFixed(0)} MiB`,
  ];
}

const significant = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);

/** Columns padded to their widest cell; the first one to the right, the others to the left. */
function aligned(table: readonly (readonly string[])[]): string[] {
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  '),
  );
}
