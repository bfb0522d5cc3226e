import { stream } from '../random.js';

export interface OrderOptions {
  /** Leaves out a last batch that is not full. */
  readonly whole?: boolean;
  /** Lengths of the samples: batches are then made of samples of similar length, so that less is padding. */
  readonly lengths?: readonly number[];
}

/** Batches whose samples are sorted by length together; fewer would mix lengths, more would mix samples less. */
const BATCHES_SORTED_TOGETHER = 50;

/**
 * Which samples a step learns from: every epoch visits each sample once, in an order drawn from (seed, epoch) alone, so
 * that a step's samples are a function of its number and resuming needs no state. The last batch of an epoch may be
 * short.
 */
export class EpochOrder {
  readonly stepsPerEpoch: number;
  #epoch = -1;
  #batches: Uint32Array[] = [];

  constructor(
    private readonly count: number,
    private readonly perStep: number,
    private readonly seed: number,
    private readonly options: OrderOptions = {},
  ) {
    this.stepsPerEpoch = options.whole === true ? Math.floor(count / perStep) : Math.ceil(count / perStep);
    if (this.stepsPerEpoch < 1) throw new RangeError(`${count} samples do not make a batch of ${perStep}`);
  }

  /** Optimizer steps of a number of epochs (a part of one is allowed), bounded by `maxSteps`. */
  totalSteps(epochs: number, maxSteps = Infinity): number {
    return Math.min(maxSteps, Math.ceil(epochs * this.stepsPerEpoch));
  }

  /** Indices of the samples of a step, counted from 0. */
  at(step: number): number[] {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    if (epoch !== this.#epoch) {
      this.#batches = this.#draw(epoch);
      this.#epoch = epoch;
    }
    return [...this.#batches[step % this.stepsPerEpoch]!];
  }

  #draw(epoch: number): Uint32Array[] {
    const order = stream(this.seed, 'order', epoch).shuffle(this.count);
    const { lengths } = this.options;
    if (lengths === undefined) return this.#cut(order);
    const window = this.perStep * BATCHES_SORTED_TOGETHER;
    for (let start = 0; start < order.length; start += window) {
      order.subarray(start, start + window).sort((a, b) => lengths[a]! - lengths[b]! || a - b);
    }
    const batches = this.#cut(order);
    return Array.from(stream(this.seed, 'batches', epoch).shuffle(batches.length), (i) => batches[i]!);
  }

  #cut(order: Uint32Array): Uint32Array[] {
    return Array.from({ length: this.stepsPerEpoch }, (_, i) =>
      order.subarray(i * this.perStep, (i + 1) * this.perStep),
    );
  }
}
