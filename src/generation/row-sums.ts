/** Where a token lies in the order that top-p keeps tokens in: by falling probability, of equal ones the lower id first. */
export interface Place {
  readonly token: number;
  readonly probability: number;
}

/** The probabilities of a row's tokens by blocks. */
export class RowSums {
  /** Sum of all, 1 but for rounding; not a number where a logit is none. */
  readonly total: number;
  /** The likeliest token's. */
  readonly highest: number;

  constructor(
    private readonly sums: Float32Array,
    private readonly maxima: Float32Array,
  ) {
    let [total, highest] = [0, 0];
    for (const sum of sums) total += sum;
    for (const maximum of maxima) highest = Math.max(highest, maximum);
    this.total = total;
    this.highest = highest;
  }

  /** The block in which the cumulative sum over blocks passes a share of the total, and which share of the block is below. */
  blockAt(share: number): { block: number; rest: number } {
    const target = share * this.total;
    let [below, last] = [0, 0];
    for (let block = 0; block < this.sums.length; block++) {
      const sum = this.sums[block]!;
      if (sum === 0) continue;
      if (target < below + sum) return { block, rest: (target - below) / sum };
      below += sum;
      last = block;
    }
    return { block: last, rest: 1 };
  }

  /** The blocks with the `count` largest maxima, and those that equal the last of them, ascending. */
  largestBlocks(count: number): number[] {
    const bound = this.maxima.toSorted().at(-count) ?? -Infinity;
    return [...this.maxima.keys()].filter((block) => this.maxima[block]! >= bound);
  }

  /**
   * Whether the tokens before a token in the order have together less than a mass, as far as sums and maxima of blocks
   * tell: what lies in blocks whose maximum is smaller comes after it, and a larger maximum itself before.
   */
  precededByLess(mass: number, { probability }: Place): boolean | undefined {
    let [before, after] = [0, probability];
    for (let block = 0; block < this.sums.length; block++) {
      const highest = this.maxima[block]!;
      if (highest < probability) after += this.sums[block]!;
      else if (highest > probability) before += highest;
    }
    if (this.total - after < mass) return true;
    return before >= mass ? false : undefined;
  }
}

/** The token in which the cumulative sum over consecutive probabilities passes a share of their sum: its place among them. */
export function placeAt(probabilities: Float32Array, share: number): number {
  let sum = 0;
  for (const probability of probabilities) sum += probability;
  const target = share * sum;
  let [below, last] = [0, 0];
  for (const [at, probability] of probabilities.entries()) {
    if (probability === 0) continue;
    if (target < below + probability) return at;
    below += probability;
    last = at;
  }
  return last;
}
