import type { Failure } from '../src/cli/report-error.js';
import type { Measurement, Setup, WorkName } from './work.js';

/** What the process of a work is told: to get ready, then to do it once, again and again. */
export type Order =
  { readonly kind: 'open'; readonly work: WorkName; readonly setup: Setup } | { readonly kind: 'once' };

/** What it answers. */
export type Answer =
  | { readonly kind: 'ready'; readonly description: string }
  | { readonly kind: 'measured'; readonly measurement: Measurement; readonly peakBytes: number }
  | { readonly kind: 'failed'; readonly failure: Failure };
