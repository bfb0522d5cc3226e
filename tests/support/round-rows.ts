const f = Math.fround;

/** A row as 8 bits hold it, in multiples of its largest magnitude / 127; entries that are not rounded do not count. */
export function roundRow(row: readonly number[], isRounded: (k: number) => boolean = () => true): number[] {
  const largest = Math.max(0, ...row.filter((_, k) => isRounded(k)).map(Math.abs));
  // In float32, so that every number is rounded to the same side as in the graph.
  const step = Math.max(f(largest * f(1 / 127)), f(1e-30));
  return row.map((value, k) => (isRounded(k) ? roundHalfEven(f(value / step)) * step : value));
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}
