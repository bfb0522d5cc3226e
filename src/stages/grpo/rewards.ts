import { z } from 'zod';
import type { GrpoConfig } from '../../config/stages.js';
import { FileReward } from '../../rewards/custom/file-reward.js';
import { LengthControl, lengthControlSchema } from '../../rewards/length-control.js';
import type { RewardRow } from '../../rewards/reward.js';
import type { TextPair } from '../../rewards/reward-model.js';
import { ruleRewards } from '../../rewards/rules/rules.js';
import type { StageContext } from '../../runs/events.js';
import type { Runtime } from '../../runtime/runtime.js';
import type { CopyIndex } from '../../text/copy-index.js';
import type { Metrics } from '../../training/loop.js';
import type { RewardScores } from './advantages.js';
import { ModelReward } from './model-reward.js';
import type { RewardSource, Scoring } from './reward-source.js';

export interface Scored {
  readonly rewards: readonly RewardScores[];
  readonly metrics: Metrics;
  /** Share of completions that the reward model rates above 99 % of held-out jokes; absent where that is not known. */
  readonly beyondHuman?: number | undefined;
}

/** What a run carries of its rewards from one rollout to the next. */
export const rewardsState = z.strictObject({
  length: lengthControlSchema,
  /** SHA-256 of the reward file. */
  file: z.string().nullable(),
});
export type RewardsState = z.infer<typeof rewardsState>;

/** The rewards that a configuration asks for, each with its weight. */
export class Rewards {
  private constructor(
    private readonly sources: readonly RewardSource[],
    private readonly length: LengthControl,
    private readonly model: ModelReward | undefined,
    private readonly file: FileReward | undefined,
    private readonly onEvent: StageContext['onEvent'],
  ) {}

  /** @throws UserError when a reward cannot be opened */
  static async open(
    runtime: Runtime,
    { rm, grpo }: Pick<GrpoConfig, 'rm' | 'grpo'>,
    training: CopyIndex,
    onEvent: StageContext['onEvent'],
  ): Promise<Rewards> {
    const settings = grpo.rewards;
    const sources: RewardSource[] = [];
    const length = new LengthControl(settings.model);
    let model: ModelReward | undefined;
    if (rm !== undefined && settings.model.weight !== 0) {
      model = await ModelReward.open(runtime, rm, { ...settings.model, batchSize: grpo.batchSize }, length);
      sources.push(model);
    }
    for (const { name, weight, score } of ruleRewards(settings, training)) {
      if (weight !== 0) sources.push({ name, weight, score: (rows) => Promise.resolve({ scores: score(rows) }) });
    }
    let file: FileReward | undefined;
    const { path, weight, timeLimit } = settings.file;
    if (path !== undefined && weight !== 0) {
      const own = await FileReward.open(path, {
        timeLimit,
        onOutput: (line) => {
          onEvent({ type: 'note', code: 'reward.output', message: `${own.name}: ${line}` });
        },
      });
      const name = sources.some((source) => source.name === own.name) ? `file_${own.name}` : own.name;
      sources.push({ name, weight, score: async (rows) => ({ scores: await own.score(rows) }) });
      file = own;
    }
    return new Rewards(sources, length, model, file, onEvent);
  }

  /** From now on the reward model rates at most this many texts at once. */
  limitBatches(most: number): void {
    this.model?.limitBatches(most);
  }

  /** Learns from jokes that people wrote how the reward model rates such texts. */
  async calibrate(pairs: readonly TextPair[]): Promise<void> {
    await this.model?.calibrate(pairs);
  }

  /** The scores of every reward, and what there is to log about how they came to be. */
  async score(rows: readonly RewardRow[], scoring: Scoring): Promise<Scored> {
    const rewards: RewardScores[] = [];
    const metrics: Metrics = {};
    for (const source of this.sources) {
      const { scores, metrics: own } = await source.score(rows, scoring);
      rewards.push({ name: source.name, weight: source.weight, scores });
      Object.assign(metrics, own);
    }
    return { rewards, metrics, beyondHuman: this.model?.beyondHuman };
  }

  get state(): RewardsState {
    return { length: this.length.state, file: this.file?.sha256 ?? null };
  }

  set state({ length, file }: RewardsState) {
    this.length.state = length;
    if (file === null || this.file === undefined || file === this.file.sha256) return;
    const message = 'The reward file is another than before: later rewards cannot be compared with earlier ones.';
    this.onEvent({ type: 'warning', code: 'reward.changed', message });
  }

  /** Ends the thread of a reward file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.file?.close();
  }
}
