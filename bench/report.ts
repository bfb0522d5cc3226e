import type { Machine } from './machine.js';
import type { Row } from './row.js';
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
      where(cpuSecondsPerStep?.median, significant),
      String(steps),
      where(gflops?.median, significant),
      where(share?.median, (each) => `${(each * 100).toFixed(0)} %`),
      where(peakRss, mebibytes),
    ]),
  ];
  return [
    `${cpu}, ${cores} cores, ${(memoryBytes / 2 ** 30).toFixed(0)} GiB, ${system}, load ${loadBefore.toFixed(1)} before the start`,
    `duanzi ${versions.duanzi}, Node ${versions.node}, ONNX Runtime ${versions.onnxruntime ?? 'unknown'}, ${threads} threads`,
    `matmul ceiling, float32: ${significant(ceilingSpread.median)} GFLOP/s (${significant(ceilingSpread.min)}–${significant(ceilingSpread.max)})`,
    '',
    ...aligned(table),
    '',
    ...rows.flatMap(({ rates, ...row }) => [
      `${row.work}: ${row.description}`,
      ...peerLines(row),
      `  ${Object.entries(rates)
        .map(([unit, { median }]) => `${significant(median)} ${unit}`)
        .join(', ')}`,
    ]),
  ].join('\n');
}

/** The row beside the peer, in the dtype that it is judged by and in the other one; memory where something is aimed at. */
function peerLines({
  peers = {},
  peerDtype,
  target,
  unit,
  peakRss,
  memoryRatio,
  memoryTarget,
}: Omit<Row, 'rates'>): string[] {
  if (Object.keys(peers).length === 0) {
    return unit === 'ms' && target !== undefined ? [`  target: at most ${target} ms`] : [];
  }
  const lines = Object.entries(peers).map(([dtype, { rate, ratio, peakRss: theirs }]) => {
    const judged = dtype === peerDtype && target !== undefined ? `, target ${target}×` : '';
    const range = `${significant(ratio.min)}–${significant(ratio.max)}`;
    return `  ${significant(ratio.median)}× the peer's ${significant(rate.median)} ${unit} in ${dtype} (${range}${judged}), which took ${mebibytes(theirs)}`;
  });
  if (memoryTarget === undefined || memoryRatio === undefined || peakRss === undefined) return lines;
  return [...lines, `  ${memoryRatio.toFixed(2)} of the peer's peak memory, target ${memoryTarget.toFixed(2)}`];
}

const where = (value: number | undefined, format: (value: number) => string): string =>
  value === undefined ? '' : format(value);

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

const significant = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);

/** Columns padded to their widest cell; the first one to the right, the others to the left. */
function aligned(table: readonly (readonly string[])[]): string[] {
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  '),
  );
}
