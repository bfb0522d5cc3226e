import { UserError } from '../errors.js';
import { wrap, type Tensor } from '../graph/tensor.js';
import type { DeviceTensor } from '../runtime/runtime.js';
import { blockLength } from './block-sums.js';
import { placeAt, RowSums, type Place } from './row-sums.js';
import { sampleToken, SamplerScratch } from './sampler.js';
import { checkSettings, type SamplingSettings } from './sampling-settings.js';

/** A token to draw: from which row, and by which random numbers. */
export interface Draw {
  readonly row: number;
  readonly random: { uniform(): number };
}

export interface DrawnToken {
  readonly token: number;
  /** Natural logarithm of its probability at the temperature (at 1 when greedy), before anything is filtered. */
  readonly logProb: number;
}

/** What a decoding step says of its rows; see `outputBlockSums`. */
type StepOutputs = Readonly<Record<string, Tensor>>;

/** A draw on its way: the sums of its row, and where its probabilities begin. */
interface Open extends Draw {
  readonly at: number;
  readonly sums: RowSums;
  readonly start: number;
}

/** Times that a token is drawn from the whole distribution before the filtered one is worked out. */
const ATTEMPTS = 4;

/**
 * Draws tokens exactly from the filtered distribution of a step's rows, with few of their probabilities at hand. A token is
 * drawn from the whole distribution, first its block by the sums of blocks, then itself by the probabilities in the block;
 * it is kept if the filter leaves it and drawn anew if not, which gives each token that is left its share of what is left.
 */
export class TokenDrawer {
  readonly #length: number;

  constructor(private readonly vocabSize: number) {
    this.#length = blockLength(vocabSize);
  }

  /** The feed that goes with the settings: what the logits are multiplied with. */
  feeds({ temperature }: SamplingSettings): Record<string, Tensor> {
    return { inverse_temperature: wrap('float32', [], Float32Array.of(temperature === 0 ? 1 : 1 / temperature)) };
  }

  /**
   * One token for each draw.
   *
   * @param outputs what came back from the step
   * @param probabilities the step's, (rows or more, V), where they were computed
   * @throws UserError when a setting is out of range or a logit is not a number
   */
  async draw(
    draws: readonly Draw[],
    outputs: StepOutputs,
    probabilities: DeviceTensor,
    settings: SamplingSettings,
  ): Promise<DrawnToken[]> {
    checkSettings(settings);
    const rows = new Map<number, RowSums>();
    const open = draws.map((draw, at): Open => {
      const sums = rows.get(draw.row) ?? this.#sumsOf(outputs, draw.row);
      rows.set(draw.row, sums);
      return { ...draw, at, sums, start: draw.row * this.vocabSize };
    });
    const drawn = new Array<DrawnToken>(draws.length);
    const keep = ({ at }: Open, { token, probability }: Place): void => {
      drawn[at] = { token, logProb: Math.log(probability) };
    };
    if (settings.temperature === 0) {
      for (const each of open)
        keep(each, { token: this.#likeliest(outputs, each.row), probability: each.sums.highest });
    } else if (settings.topK > 0 && settings.topK < this.vocabSize) {
      for (const each of open) keep(each, await this.#amongLargest(each, probabilities, settings));
    } else {
      let rejected: Open[] = open;
      for (let attempt = 0; attempt < ATTEMPTS && rejected.length > 0; attempt++) {
        const places = await this.#drawWhole(rejected, probabilities);
        const isLeft = await this.#areLeft(rejected, places, probabilities, settings);
        for (const [i, each] of rejected.entries()) if (isLeft[i]!) keep(each, places[i]!);
        rejected = rejected.filter((_, i) => !isLeft[i]!);
      }
      const blocks = Array.from({ length: this.vocabSize / this.#length }, (_, block) => block);
      for (const each of rejected) keep(each, await this.#amongBlocks(each, blocks, probabilities, settings));
    }
    return drawn;
  }

  #sumsOf(outputs: StepOutputs, row: number): RowSums {
    const count = this.vocabSize / this.#length;
    const of = (name: string) => (outputs[name]!.data as Float32Array).subarray(row * count, (row + 1) * count);
    const sums = new RowSums(of('block_sums'), of('block_maxima'));
    if (sums.total > 0 && sums.total < Infinity) return sums;
    throw new UserError({
      code: 'generation.logits',
      message: "The model's logits are not all numbers, so there is no next token to draw.",
      where: 'logits',
      fix: 'The weights are damaged or training has diverged: take an earlier checkpoint or a lower learning rate.',
    });
  }

  #likeliest(outputs: StepOutputs, row: number): number {
    const logits = outputs['best_logits']!.data.subarray(row * this.#length, (row + 1) * this.#length) as Float32Array;
    const block = (outputs['best_block']!.data as Int32Array)[row]!;
    return block * this.#length + logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  }

  /** A token of each row's whole distribution. */
  async #drawWhole(open: readonly Open[], probabilities: DeviceTensor): Promise<Place[]> {
    const length = this.#length;
    const chosen = open.map(({ sums, random }) => sums.blockAt(random.uniform()));
    const starts = open.map(({ start }, i) => start + chosen[i]!.block * length);
    const parts = (await probabilities.readParts(starts, length)).data as Float32Array;
    return chosen.map(({ block, rest }, i) => {
      const part = parts.subarray(i * length, (i + 1) * length);
      const place = placeAt(part, rest);
      return { token: block * length + place, probability: part[place]! };
    });
  }

  /** Whether top-p and min-p leave the tokens that were drawn. */
  async #areLeft(
    open: readonly Open[],
    places: readonly Place[],
    probabilities: DeviceTensor,
    { topP, minP }: SamplingSettings,
  ): Promise<boolean[]> {
    const left = places.map((place, i): boolean | undefined => {
      if (place.probability < minP * open[i]!.sums.highest) return false;
      return topP === 1 ? true : open[i]!.sums.precededByLess(topP * open[i]!.sums.total, place);
    });
    const unknown = [...left.keys()].filter((i) => left[i] === undefined);
    if (unknown.length === 0) return left.map((known) => known === true);
    const queries = unknown.map((i) => {
      const { start, sums } = open[i]!;
      const { token: place, probability: value } = places[i]!;
      return { start, place, value, mass: topP * sums.total, total: sums.total };
    });
    const answers = await probabilities.precededByLess(queries, this.vocabSize);
    for (const [k, i] of unknown.entries()) left[i] = answers[k]!;
    return left.map((known) => known === true);
  }

  /** A token of the k likeliest ones, which lie in the blocks with the k largest maxima. */
  async #amongLargest(open: Open, probabilities: DeviceTensor, settings: SamplingSettings): Promise<Place> {
    return this.#amongBlocks(open, open.sums.largestBlocks(settings.topK), probabilities, settings);
  }

  /** A token of what the filters leave, none of which lies outside of the blocks. */
  async #amongBlocks(
    { start, random }: Open,
    blocks: readonly number[],
    probabilities: DeviceTensor,
    settings: SamplingSettings,
  ): Promise<Place> {
    const length = this.#length;
    const starts = blocks.map((block) => start + block * length);
    const parts = (await probabilities.readParts(starts, length)).data as Float32Array;
    const scores = Float64Array.from(parts, Math.log);
    const place = sampleToken(scores, { ...settings, temperature: 1 }, random, new SamplerScratch(scores.length));
    return { token: blocks[Math.floor(place / length)]! * length + (place % length), probability: parts[place]! };
  }
}
