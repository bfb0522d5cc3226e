/** Where a token lies in the order that top-p keeps tokens in: by falling weight, of equal ones the lower id first. */
export interface Place {
  readonly token: number;
  readonly weight: number;
}

/** How far apart two float32 exponentials of the same number may be, relatively. */
const ROUNDING = 2 ** -20;

/** The weights of a row by blocks: a token's is its probability over that of the likeliest. */
export class RowSums {
  /** Sum of all weights; not a number where a logit is none. */
  readonly total: number;

  constructor(
    private readonly sums: Float32Array,
    private readonly maxima: Float32Array,
  ) {
    let total = 0;
    for (const sum of sums) total += sum;
    this.total = total;
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
    return [...this.maxima.keys()].filter((block) => this.maxima[block]! >= bound * (1 - ROUNDING));
  }

  /**
   * Whether the tokens before a token in the order have together less than a mass, as far as sums and maxima of blocks
   * tell: what lies in blocks whose maximum is smaller comes after it, and a larger maximum itself before.
   */
  precededByLess(mass: number, { weight }: Place): boolean | undefined {
    let [before, after] = [0, weight];
    for (let block = 0; block < this.sums.length; block++) {
      const highest = this.maxima[block]!;
      if (highest * (1 + ROUNDING) < weight) after += this.sums[block]!;
      else if (highest * (1 - ROUNDING) > weight) before += highest;
    }
    if (this.total - after < mass) return true;
    return before >= mass ? false : undefined;
  }
}

/** The token in which the cumulative sum over consecutive weights passes a share of their sum: its place among them. */
export function placeAt(weights: Float32Array, share: number): number {
  let sum = 0;
  for (const weight of weights) sum += weight;
  const target = share * sum;
  let [below, last] = [0, 0];
  for (const [at, weight] of weights.entries()) {
    if (weight === 0) continue;
    if (target < below + weight) return at;
    below += weight;
    last = at;
  }
  return last;
}

/** Adds up what comes before and after a token in the order, over parts of a row, until it decides. */
export class Preceding {
  #before = 0;
  #after = 0;

  constructor(
    private readonly place: Place,
    private readonly mass: number,
    private readonly total: number,
  ) {}

  /**
   * Takes the next part of the row in.
   *
   * @param start id of the part's first token
   * @returns whether the tokens before the token have less than the mass, where the parts so far tell
   */
  take(part: Float32Array, start: number): boolean | undefined {
    const { token, weight } = this.place;
    let [before, after] = [0, 0];
    for (let i = 0; i < part.length; i++) {
      const other = part[i]!;
      if (other > weight || (other === weight && start + i < token)) before += other;
      else after += other;
    }
    this.#before += before;
    this.#after += after;
    if (this.#before >= this.mass) return false;
    return this.total - this.#after < this.mass ? true : undefined;
  }

  /** What all parts together say. */
  get decided(): boolean {
    return this.#before < this.mass;
  }
}
