import type { RewardRow } from '../reward.js';

/** A batch to score. */
export interface Question {
  readonly id: number;
  readonly rows: readonly RewardRow[];
}

/** An error that the user's code threw, as it can be sent. */
export interface Thrown {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
}

export type Answer =
  /** The file is loaded; `fault` says why it can reward nothing. */
  | { readonly kind: 'ready'; readonly fault?: string }
  | { readonly kind: 'scores'; readonly id: number; readonly scores: readonly (number | null)[] }
  | { readonly kind: 'fault'; readonly id: number; readonly fault: string }
  | { readonly kind: 'thrown'; readonly id: number; readonly thrown: Thrown };
