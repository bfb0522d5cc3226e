import type { RewardRow, Scores } from '../../rewards/reward.js';
import type { Metrics } from '../../training/loop.js';

/** Which completions are scored. */
export interface Scoring {
  /** Completions of a prompt, next to each other. */
  readonly groupSize: number;
  /** Whether they belong to training, and what is learned of them is kept. */
  readonly learn: boolean;
}

/** One reward among those of a run. */
export interface RewardSource {
  readonly name: string;
  readonly weight: number;
  score(rows: readonly RewardRow[], scoring: Scoring): Promise<{ scores: Scores; metrics?: Metrics }>;
}
