import { z } from 'zod';
import type { GrpoConfig } from '../../../config/stages.js';
import { ALARMS_FILE } from '../../../evaluation/alarms.js';
import type { RunFolder } from '../../../runs/run-folder.js';
import type { CopyIndex } from '../../../text/copy-index.js';
import type { Metrics } from '../../../training/loop.js';
import type { Rollout } from '../rollout.js';
import { Notes, notesSchema } from '../notes.js';
import { measure } from './figures.js';
import { Watch, watchSchema } from './watch.js';

/** What a run carries of its alarms and notes. */
export const alarmsSchema = z.strictObject({ watch: watchSchema, notes: notesSchema });
export type AlarmsState = z.infer<typeof alarmsSchema>;

/** The alarms of a run: measures its rollouts, logs, warns, and explains what puzzles people. */
export class Alarms {
  readonly #watch: Watch;
  readonly #notes = new Notes();

  constructor(
    private readonly config: GrpoConfig['grpo'],
    private readonly run: RunFolder,
    private readonly training: CopyIndex,
  ) {
    this.#watch = new Watch(config.alarms);
  }

  /** A rollout that the steps from `step` on learn from; its figures are to be logged. */
  rollout({ records, metrics: logged, beyondHuman }: Rollout, step: number): Metrics {
    const zeroVariance = logged['frac_reward_zero_std'];
    const figures = measure(records, {
      groupSize: this.config.numGenerations,
      training: this.training,
      beyondHuman: beyondHuman ?? null,
      zeroVariance: zeroVariance === undefined || Number.isNaN(zeroVariance) ? null : zeroVariance,
    });
    const { metrics, alarms } = this.#watch.rollout(figures);
    for (const { name, message } of alarms) {
      this.run.lines(ALARMS_FILE).append({ step, name, message });
      this.run.emit({ type: 'warning', code: `gaming.${name}`, message: `Step ${step}: ${message}` });
    }
    return metrics;
  }

  /** What was logged of a step, the `done`-th from 1. */
  step(done: number, metrics: Metrics): void {
    this.#watch.step(metrics);
    for (const note of this.#notes.step(done, metrics)) this.run.emit({ type: 'note', ...note });
  }

  get state(): AlarmsState {
    return { watch: this.#watch.state, notes: this.#notes.state };
  }

  set state({ watch, notes }: AlarmsState) {
    this.#watch.state = watch;
    this.#notes.state = notes;
  }
}
