import { wrap, type Tensor } from '../graph/tensor.js';
import type { DeviceTensor } from '../runtime/runtime.js';
import { blockSizes, type BlockSizes } from './candidate-blocks.js';
import { CandidateSampler, type CandidateRow } from './candidate-sampler.js';
import { sampleToken, SamplerScratch } from './sampler.js';
import type { SamplingSettings } from './sampling-settings.js';

/** A token to draw: from which row of logits, and by which random numbers. */
export interface Draw {
  readonly row: number;
  readonly random: { uniform(): number };
}

export interface DrawnToken {
  readonly token: number;
  /** Natural logarithm of its probability at the temperature (at 1 when greedy), before anything is filtered. */
  readonly logProb: number;
}

/** Draws tokens as `sampleToken` does, from the candidates that a decoding step brings back. */
export class TokenDrawer {
  readonly #sampler: CandidateSampler;
  readonly #sizes: BlockSizes;
  readonly #scratch: SamplerScratch;

  constructor(vocabSize: number) {
    this.#sizes = blockSizes(vocabSize);
    this.#sampler = new CandidateSampler(vocabSize, this.#sizes);
    this.#scratch = new SamplerScratch(vocabSize);
  }

  /** The feed that goes with the settings. */
  feeds({ temperature }: SamplingSettings): Record<string, Tensor> {
    return { inverse_temperature: wrap('float32', [], Float32Array.of(1 / dividing(temperature))) };
  }

  /**
   * One token for each draw. Where the candidates do not decide it the whole row is read.
   *
   * @param outputs `block_ids`, `block_logits` and `top_probability` of the step
   * @param logits the step's logits, (rows or more, V), where they were computed
   */
  async draw(
    draws: readonly Draw[],
    outputs: Readonly<Record<string, Tensor>>,
    logits: DeviceTensor,
    settings: SamplingSettings,
  ): Promise<DrawnToken[]> {
    const { temperature } = settings;
    const drawn: DrawnToken[] = [];
    for (const { row, random } of draws) {
      const candidates = this.#rowOf(outputs, row);
      const uniform = temperature === 0 ? 0 : random.uniform();
      let token = this.#sampler.draw(candidates, settings, uniform);
      let logit: number;
      if (token === undefined) {
        const scores = (await logits.readRows(row, 1)).data as Float32Array;
        token = sampleToken(scores, settings, { uniform: () => uniform }, this.#scratch);
        logit = scores[token]!;
      } else {
        logit = this.#sampler.logitOf(candidates, token);
      }
      drawn.push({ token, logProb: this.#sampler.logProbability(candidates, dividing(temperature), logit) });
    }
    return drawn;
  }

  #rowOf(outputs: Readonly<Record<string, Tensor>>, row: number): CandidateRow {
    const { chosen, length } = this.#sizes;
    const part = (name: string, size: number) => outputs[name]!.data.subarray(row * size, (row + 1) * size);
    return {
      blockIds: part('block_ids', chosen) as Int32Array,
      blockLogits: part('block_logits', chosen * length) as Float32Array,
      topProbability: (outputs['top_probability']!.data as Float32Array)[row]!,
    };
  }
}

/** What logits are divided by. */
const dividing = (temperature: number): number => (temperature === 0 ? 1 : temperature);
