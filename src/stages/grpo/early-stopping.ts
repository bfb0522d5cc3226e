import { z } from 'zod';
import type { GrpoConfig } from '../../config/stages.js';
import { LengthControl, lengthControlSchema } from '../../rewards/length-control.js';
import type { RewardRow } from '../../rewards/reward.js';
import { ruleRewards } from '../../rewards/rules/rules.js';
import { characters } from '../../text/characters.js';
import type { CopyIndex } from '../../text/copy-index.js';
import type { Metrics } from '../../training/loop.js';

/** The metric that decides. */
export const CRITERION = 'eval_criterion';

/** What a run carries of it from one look at held-out prompts to the next. */
export const earlyStoppingState = z.strictObject({
  length: lengthControlSchema,
  best: z.number().nullable(),
  /** Looks since the best. */
  since: z.int(),
});
export type EarlyStoppingState = z.infer<typeof earlyStoppingState>;

/** Completions to held-out prompts, those of a prompt next to each other. */
export interface HeldOut {
  readonly rows: readonly RewardRow[];
  /** What training rewards; null where nothing applies. */
  readonly rewards: readonly (number | null)[];
  readonly groupSize: number;
}

/**
 * Ends a run when a criterion has not risen for a while on held-out prompts. The criterion is not what training rewards:
 * a policy that games its reward stops rising here.
 */
export class EarlyStopping {
  state: EarlyStoppingState = { length: { startLength: null, window: [] }, best: null, since: 0 };

  constructor(
    private readonly config: GrpoConfig['grpo'],
    private readonly training: CopyIndex,
  ) {}

  get isOn(): boolean {
    return this.config.earlyStopping.criterion !== 'none';
  }

  /** Whether the criterion has not risen for as many looks as patience allows. */
  get isEnough(): boolean {
    return this.isOn && this.state.since >= this.config.earlyStopping.patience;
  }

  /** Looks at held-out completions after `step` steps; the criterion, to be logged. */
  look(step: number, heldOut: HeldOut): Metrics {
    const { criterion, minDelta } = this.config.earlyStopping;
    if (criterion === 'none') return {};
    const value = criterion === 'rules' ? this.#rules(heldOut) : this.#lengthControlled(heldOut);
    // Before the first step there is nothing to keep; a value that is none is no best.
    if (step > 0) {
      const { best } = this.state;
      const better = best === null ? Number.isFinite(value) : value > best + minDelta;
      this.state = { ...this.state, ...(better ? { best: value, since: 0 } : { since: this.state.since + 1 }) };
    }
    return { [CRITERION]: value };
  }

  /** The mean over completions of the mean of all rules that apply, whatever their weights in training. */
  #rules({ rows }: HeldOut): number {
    const columns = ruleRewards(this.config.rewards, this.training).map(({ score }) => score(rows));
    return mean(rows.map((_, i) => mean(columns.flatMap((column) => column[i] ?? []))));
  }

  /** The mean reward less what longer texts earned before the first step. */
  #lengthControlled({ rows, rewards, groupSize }: HeldOut): number {
    const control = new LengthControl({ lengthControl: 'residual', lengthPrice: 0, lengthWindow: 1 });
    control.state = this.state.length;
    const lengths = rows.map(({ completion }) => characters(completion).length);
    const scores = rewards.map((reward) => reward ?? Number.NaN);
    const learn = control.state.startLength === null;
    const controlled = control.apply(lengths, scores, { groupSize, learn });
    this.state = { ...this.state, length: control.state };
    return mean(controlled.scores.filter((score) => !Number.isNaN(score)));
  }
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
