/** The mean of the values that are not NaN; NaN when there is none. Exact when all of them are equal. */
export function mean(values: Float64Array): number {
  // Summing differences to one of the values keeps rounding out of a group of equal rewards.
  const anchor = values.find((value) => !Number.isNaN(value));
  if (anchor === undefined) return Number.NaN;
  let sum = 0;
  let count = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    sum += value - anchor;
    count += 1;
  }
  return anchor + sum / count;
}

/** The standard deviation, with Bessel's correction, of the values that are not NaN; NaN when there are fewer than two. */
export function std(values: Float64Array): number {
  const center = mean(values);
  let squares = 0;
  let count = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    squares += (value - center) ** 2;
    count += 1;
  }
  return count < 2 ? Number.NaN : Math.sqrt(squares / (count - 1));
}
