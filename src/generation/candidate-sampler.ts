import { cutAtSum, kthLargest, type Cut } from './cut.js';
import type { BlockSizes } from './candidate-blocks.js';
import { checkSettings, type SamplingSettings } from './sampling-settings.js';

/** What `outputCandidates` gives of one row. */
export interface CandidateRow {
  /** (K), by falling maximum. */
  readonly blockIds: Int32Array;
  /** (K, L). */
  readonly blockLogits: Float32Array;
  /** The likeliest token's probability in the whole row, at the temperature. */
  readonly topProbability: number;
}

/**
 * Bound of the relative error of a float32 softmax whose largest exponent is `exponent`: roundings of the exponents,
 * which weigh most, and of the sum.
 */
const softmaxError = (exponent: number): number => 2 ** -16 + 2 ** -21 * Math.abs(exponent);
/** Bound of that of float64 sums of the same numbers in another order. */
const ORDER_ERROR = 2 ** -40;

/** Draws tokens from candidates, where these decide what `sampleToken` would draw from the whole row. */
export class CandidateSampler {
  readonly #order: Float64Array;
  readonly #tokens: Uint32Array;
  readonly #scores: Float64Array;
  readonly #weights: Float64Array;
  readonly #work: Float64Array;
  readonly #cuts: readonly [Cut, Cut] = [
    { value: 0, ties: 0 },
    { value: 0, ties: 0 },
  ];

  constructor(
    private readonly vocabSize: number,
    private readonly sizes: BlockSizes,
  ) {
    const size = sizes.chosen * sizes.length;
    this.#order = new Float64Array(sizes.chosen);
    this.#tokens = new Uint32Array(size);
    this.#scores = new Float64Array(size);
    this.#weights = new Float64Array(size);
    this.#work = new Float64Array(size);
  }

  /**
   * The token that `sampleToken` would draw from the whole row with the same uniform number; undefined where the
   * candidates do not decide it: the nucleus reaches beyond them, or the number falls so close to a border between two
   * tokens that the rounding of the row's total could move it over.
   */
  draw(row: CandidateRow, settings: SamplingSettings, uniform: number): number | undefined {
    checkSettings(settings);
    const { temperature, topK, topP, minP, repetitionPenalty } = settings;
    if (repetitionPenalty !== 1 || !(row.topProbability > 0)) return undefined;
    const bound = this.#lowestMaximum(row);
    const count = this.#collect(row, bound);
    if (count === 0) return undefined;
    const highest = this.#highest(count);
    if (!Number.isFinite(highest)) return undefined;
    if (temperature === 0) return this.#tokens[this.#scores.indexOf(highest)];

    const weightOf = (score: number): number => Math.exp((score - highest) / temperature);
    const isFiltered = topK > 0 && topK < this.vocabSize;
    if (isFiltered && count < topK) return undefined;
    const lowestKept = isFiltered ? this.#kthScore(topK, count) : -Infinity;
    let mass = 0;
    for (let i = 0; i < count; i++) {
      const score = this.#scores[i]!;
      this.#weights[i] = score >= lowestKept ? weightOf(score) : 0;
      mass += this.#weights[i]!;
    }
    const isComplete = bound === -Infinity || isFiltered;
    const total = isComplete ? mass : 1 / row.topProbability;
    const error = isComplete ? ORDER_ERROR : softmaxError(highest / temperature);
    const [inner, outer] = this.#cuts;
    if (topP === 1) {
      if (!isComplete && weightOf(bound) >= minP) return undefined;
      inner.value = inner.ties = outer.value = outer.ties = 0;
    } else {
      const most = topP * total * (1 + error);
      if (!isComplete && mass < most) return undefined;
      this.#cut(topP * total * (1 - error), count, inner);
      this.#cut(most, count, outer);
    }
    return this.#invert(count, minP, uniform);
  }

  /** The logit of a token that was drawn from the row. */
  logitOf({ blockIds, blockLogits }: CandidateRow, token: number): number {
    const { length } = this.sizes;
    return blockLogits[blockIds.indexOf(Math.floor(token / length)) * length + (token % length)]!;
  }

  /** The natural logarithm of a token's probability in the whole, unfiltered row at a temperature. */
  logProbability(row: CandidateRow, temperature: number, logit: number): number {
    const highest = row.blockLogits.subarray(0, this.sizes.length).reduce((a, b) => Math.max(a, b), -Infinity);
    return (logit - highest) / temperature + Math.log(row.topProbability);
  }

  /** Every logit above this one is a candidate. */
  #lowestMaximum({ blockLogits }: CandidateRow): number {
    const { length, chosen } = this.sizes;
    if (length * chosen === this.vocabSize) return -Infinity;
    let highest = -Infinity;
    for (let i = (chosen - 1) * length; i < chosen * length; i++) highest = Math.max(highest, blockLogits[i]!);
    return highest;
  }

  /** Fills tokens, in the order of their ids, and scores with all logits above the bound. */
  #collect({ blockIds, blockLogits }: CandidateRow, bound: number): number {
    const { length, chosen } = this.sizes;
    for (let k = 0; k < chosen; k++) this.#order[k] = blockIds[k]! * chosen + k;
    this.#order.sort();
    let count = 0;
    for (const key of this.#order) {
      const k = key % chosen;
      for (let i = 0; i < length; i++) {
        const logit = blockLogits[k * length + i]!;
        if (!(logit > bound)) continue;
        this.#tokens[count] = blockIds[k]! * length + i;
        this.#scores[count] = logit;
        count++;
      }
    }
    return count;
  }

  #highest(count: number): number {
    let highest = -Infinity;
    for (let i = 0; i < count; i++) highest = Math.max(highest, this.#scores[i]!);
    return highest;
  }

  #kthScore(k: number, count: number): number {
    for (let i = 0; i < count; i++) this.#work[i] = this.#scores[i]!;
    return kthLargest(this.#work, count, k, this.#cuts[0]);
  }

  #cut(target: number, count: number, cut: Cut): void {
    let positive = 0;
    for (let i = 0; i < count; i++) if (this.#weights[i]! > 0) this.#work[positive++] = this.#weights[i]!;
    cutAtSum(this.#work, positive, target, cut);
  }

  /**
   * Inverts the cumulative distribution over the nucleus of the smaller target. That of the larger one has at most
   * `doubtful` more, so that F(t) − u·mass is off by no more than that for any nucleus between the two.
   */
  #invert(count: number, minP: number, uniform: number): number | undefined {
    const [inner, outer] = this.#cuts;
    let [innerTies, outerTies, kept, doubtful, mass] = [inner.ties, outer.ties, 0, 0, 0];
    for (let i = 0; i < count; i++) {
      const weight = this.#weights[i]!;
      if (weight < minP || weight === 0 || weight < outer.value) continue;
      if (weight === outer.value && outer.value > 0 && outerTies-- <= 0) continue;
      if (weight < inner.value || (weight === inner.value && inner.value > 0 && innerTies-- <= 0)) {
        doubtful += weight;
        continue;
      }
      this.#tokens[kept] = this.#tokens[i]!;
      this.#work[kept] = weight;
      mass += weight;
      kept++;
    }
    const target = uniform * mass;
    let below = 0;
    for (let i = 0; i < kept; i++) {
      const above = below + this.#work[i]!;
      if (target < above || i === kept - 1) {
        const isCertain = doubtful === 0 || (target - below >= doubtful && above - target > doubtful);
        return isCertain ? this.#tokens[i]! : undefined;
      }
      below = above;
    }
    return undefined;
  }
}
