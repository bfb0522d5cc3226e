import type { GrpoConfig } from '../../../config/stages.js';
import type { RunFolder } from '../../../runs/run-folder.js';
import type { CopyIndex } from '../../../text/copy-index.js';
import type { Metrics } from '../../../training/loop.js';
import type { Rollout } from '../rollout.js';
import { measure } from './figures.js';
import { Watch, type WatchState } from './watch.js';

/** File of a run folder with every alarm that spoke, one a line; the report shows it. */
export const ALARMS_FILE = 'alarms.jsonl';

/** The alarms of a run: measures its rollouts, logs, and warns. */
export class Alarms {
  readonly #watch: Watch;

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

  /** A step's metrics. */
  step(metrics: Metrics): void {
    this.#watch.step(metrics);
  }

  get state(): WatchState {
    return this.#watch.state;
  }

  set state(state: WatchState) {
    this.#watch.state = state;
  }
}
