import type { Failure } from '../src/cli/report-error.js';
import type { Measurement, Setup, WorkName } from './work.js';

/** What the process of a work is told: to get ready, then to do it once, again and again. */
export type Order =
  { readonly kind: 'open'; readonly work: WorkName; readonly setup: Setup } | { readonly kind: 'once' };

/** What a repetition took of the machine. */
export interface Used {
  /** Processor time of all threads of the process. */
  readonly cpuSeconds: number;
  /** Largest resident memory of the process so far. */
  readonly peakBytes: number;
}

/** What it answers. */
export type Answer =
  | { readonly kind: 'ready'; readonly description: string }
  | { readonly kind: 'measured'; readonly measurement: Measurement & Used }
  | { readonly kind: 'failed'; readonly failure: Failure };
