import type { Quantization } from '../src/nn/context.js';

/** What is repeated and measured. */
export const WORKS = ['ceiling', 'sft', 'rm', 'grpo', 'generate-1', 'generate-64'] as const;
export type WorkName = (typeof WORKS)[number];

/** What a work is given; folders and files are there when it starts. */
export interface Setup {
  readonly threads: number;
  /** Folder of the causal model, and of the reward model. */
  readonly model: string;
  readonly rm: string;
  /** The form in which the policy's base multiplies; of the reward model int8 is the precision of its products. */
  readonly quantization: Quantization;
  /** Whether gradients compute blocks again. */
  readonly recompute: boolean;
  /** Rows to take texts from; without it batches are token ids of the published data's lengths. */
  readonly csv: string | undefined;
  /** Small batches and few tokens, to see that everything works. */
  readonly quick: boolean;
  /** Where the ceiling's matrix is written. */
  readonly scratch: string;
}

/** What a repetition got through, and in how long. */
export interface Turn {
  readonly seconds: number;
  /** What was got through, by unit; the first one is what the work is judged by. */
  readonly amounts: Readonly<Record<string, number>>;
  /** Seconds of it that were spent on a part, by its name. */
  readonly parts?: Readonly<Record<string, number>> | undefined;
}

/** One repetition of a work. */
export interface Measurement extends Turn {
  /** Floating-point operations that the work cannot do without, however it is done. */
  readonly flops: number;
}

/** A work that is ready to be repeated. */
export interface Work {
  /** Model and batch, in words. */
  readonly description: string;
  once(): Promise<Measurement>;
}

/** Runs something and measures it. */
export async function timed(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return (performance.now() - start) / 1000;
}
