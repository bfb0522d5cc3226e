import { z } from 'zod';
import type { Metrics } from '../../training/loop.js';

/** Something that puzzles people the first time they see it, in plain words. */
export interface Note {
  readonly code: string;
  readonly message: string;
}

/** What a run carries of its notes from one step to the next. */
export const notesSchema = z.strictObject({
  told: z.array(z.string()),
  /** Mean rewards of the first rollouts and of the newest. */
  first: z.array(z.number()),
  last: z.array(z.number()),
  rollouts: z.int(),
});
export type NotesState = z.infer<typeof notesSchema>;

/** Rollouts at either end that a flat reward is judged by, and how many there must be. */
const END = 4;
const FLAT_AFTER = 12;
/** A loss nearer to 0 is rounding. */
const ZERO = 1e-3;
/** KL, nats a token, from which it is worth a word, and below which a policy has not moved. */
const KL_WORTH_A_WORD = 0.02;
const KL_UNMOVED = 1e-3;

/** Explains, once a run, what the figures of a step mean where people often wonder. */
export class Notes {
  state: NotesState = { told: [], first: [], last: [], rollouts: 0 };

  /** @param step optimizer steps done, from 1 */
  step(step: number, metrics: Metrics): Note[] {
    this.#remember(metrics['reward']);
    const found = [lossOf(step, metrics), klOf(metrics), this.#flat(metrics)];
    const notes = found.filter((note) => note !== undefined).filter(({ code }) => !this.state.told.includes(code));
    this.state.told.push(...notes.map(({ code }) => code));
    return notes;
  }

  #remember(reward: number | undefined): void {
    if (reward === undefined || !Number.isFinite(reward)) return;
    const { state } = this;
    state.rollouts += 1;
    if (state.first.length < END) state.first.push(reward);
    state.last = [...state.last, reward].slice(-END);
  }

  /** A reward whose newest rollouts cannot be told from the first: Welch's t of their means below 1. */
  #flat({ kl, frac_reward_zero_std: equal = 0 }: Metrics): Note | undefined {
    const { first, last, rollouts } = this.state;
    if (rollouts < FLAT_AFTER) return undefined;
    const [before, after] = [statistics(first), statistics(last)];
    const gain = after.mean - before.mean;
    if (gain > Math.sqrt((before.variance + after.variance) / END)) return undefined;
    const why =
      equal > 0.5
        ? 'Most groups have one reward alone and teach nothing: the reward is too coarse, or at its ceiling.'
        : kl !== undefined && kl < KL_UNMOVED
          ? `The policy has hardly moved (KL ${show(kl)}): raise grpo.learningRate, shorten the warm-up, or just wait.`
          : 'The policy moves, and the reward does not follow: it may be too noisy (raise grpo.numGenerations), at its ceiling, or held back by grpo.beta.';
    return {
      code: 'grpo.reward-flat',
      message: `The reward is flat: ${show(before.mean)} in the first ${END} rollouts, ${show(after.mean)} in the last ${END} of ${rollouts}. ${why}`,
    };
  }
}

function lossOf(step: number, { loss }: Metrics): Note | undefined {
  if (loss === undefined) return undefined;
  if (step === 1 && Math.abs(loss) < ZERO) {
    return {
      code: 'grpo.loss-zero',
      message:
        'The loss of the first step is 0, as it should be: the policy still equals the one that wrote the texts and the reference, and advantages of a group sum to 0. Its gradient is not 0. Watch the reward, not the loss.',
    };
  }
  if (loss > -ZERO) return undefined;
  return {
    code: 'grpo.loss-negative',
    message:
      'The loss is negative, which is no error: it is minus the mean of advantage × probability ratio, plus beta × KL, and not a distance to anything. It does not tell progress. Watch the reward on held-out prompts.',
  };
}

function klOf({ kl }: Metrics): Note | undefined {
  if (kl === undefined || !(kl > KL_WORTH_A_WORD)) return undefined;
  return {
    code: 'grpo.kl-rising',
    message: `The KL is ${show(kl)} nats a token: so far has the policy moved from where it started. It rises while something is learned. Where the reward no longer rises with it, stop, or raise grpo.beta.`,
  };
}

function statistics(values: readonly number[]): { mean: number; variance: number } {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return { mean, variance: values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1) };
}

const show = (value: number): string => String(Number(value.toPrecision(2)));
