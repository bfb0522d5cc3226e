/** One bin of a reliability diagram over (low, high]; the first bin also holds its left border. */
export interface ReliabilityBin {
  low: number;
  high: number;
  /** Rows whose score lies in the bin. */
  count: number;
  /** Mean score of those rows; null when there are none. */
  meanScore: number | null;
  /** Share of those rows where the outcome was 1; null when there are none. */
  fractionPositive: number | null;
}

/** Equal-width bins of scores in [0, 1] against outcomes 0 or 1. */
export function reliabilityBins(outcomes: ArrayLike<number>, scores: ArrayLike<number>, bins = 10): ReliabilityBin[] {
  const count = new Float64Array(bins);
  const scoreSum = new Float64Array(bins);
  const outcomeSum = new Float64Array(bins);
  for (let row = 0; row < scores.length; row += 1) {
    const bin = binOf(scores[row]!, bins);
    count[bin]! += 1;
    scoreSum[bin]! += scores[row]!;
    outcomeSum[bin]! += outcomes[row]!;
  }
  return Array.from(count, (n, bin) => ({
    low: border(bin, bins),
    high: border(bin + 1, bins),
    count: n,
    meanScore: n === 0 ? null : scoreSum[bin]! / n,
    fractionPositive: n === 0 ? null : outcomeSum[bin]! / n,
  }));
}

/** Expected calibration error (Naeini et al. 2015): sum over bins of (share of rows) × |mean score − share of outcome 1|. */
export function expectedCalibrationError(bins: readonly ReliabilityBin[]): number {
  const rows = bins.reduce((sum, bin) => sum + bin.count, 0);
  const gaps = bins.reduce(
    (sum, { count, meanScore, fractionPositive }) =>
      meanScore === null || fractionPositive === null ? sum : sum + count * Math.abs(meanScore - fractionPositive),
    0,
  );
  return rows === 0 ? 0 : gaps / rows;
}

function binOf(score: number, bins: number): number {
  let bin = Math.min(bins - 1, Math.max(0, Math.ceil(score * bins) - 1));
  while (bin > 0 && score <= border(bin, bins)) bin -= 1;
  while (bin < bins - 1 && score > border(bin + 1, bins)) bin += 1;
  return bin;
}

/** Multiples of the rounded width, as numpy's linspace draws them: where a score sits on a border, rounding decides. */
function border(index: number, bins: number): number {
  return index === bins ? 1 : index * (1 / bins);
}
