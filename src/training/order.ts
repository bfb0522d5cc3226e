import { stream } from '../random.js';

/**
 * Which samples a step learns from: every epoch visits each sample once, in an order drawn from (seed, epoch) alone, so
 * that a step's samples are a function of its number and resuming needs no state. The last batch of an epoch may be
 * short, or is left out where only whole ones will do.
 */
export class EpochOrder {
  readonly stepsPerEpoch: number;
  #epoch = -1;
  #permutation: Uint32Array = new Uint32Array(0);

  constructor(
    private readonly count: number,
    private readonly perStep: number,
    private readonly seed: number,
    batches: 'all' | 'whole' = 'all',
  ) {
    this.stepsPerEpoch = batches === 'all' ? Math.ceil(count / perStep) : Math.floor(count / perStep);
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
      this.#permutation = stream(this.seed, 'order', epoch).shuffle(this.count);
      this.#epoch = epoch;
    }
    const start = (step % this.stepsPerEpoch) * this.perStep;
    return [...this.#permutation.subarray(start, start + this.perStep)];
  }
}
