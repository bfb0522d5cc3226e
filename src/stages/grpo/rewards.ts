import { z } from 'zod';
import type { GrpoConfig } from '../../config/stages.js';
import { LengthControl, lengthControlSchema } from '../../rewards/length-control.js';
import type { RewardRow } from '../../rewards/reward.js';
import type { TextPair } from '../../rewards/reward-model.js';
import type { Runtime } from '../../runtime/runtime.js';
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
export const rewardsState = z.strictObject({ length: lengthControlSchema });
export type RewardsState = z.infer<typeof rewardsState>;

/** The rewards that a configuration asks for, each with its weight. */
export class Rewards {
  private constructor(
    private readonly sources: readonly RewardSource[],
    private readonly length: LengthControl,
    private readonly model: ModelReward | undefined,
  ) {}

  /** @throws UserError when a reward cannot be opened */
  static async open(runtime: Runtime, { rm, grpo }: Pick<GrpoConfig, 'rm' | 'grpo'>): Promise<Rewards> {
    const sources: RewardSource[] = [];
    const { model } = grpo.rewards;
    const length = new LengthControl(model);
    let judge: ModelReward | undefined;
    if (rm !== undefined && model.weight !== 0) {
      judge = await ModelReward.open(runtime, rm, { ...model, batchSize: grpo.batchSize }, length);
      sources.push(judge);
    }
    return new Rewards(sources, length, judge);
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
    return { length: this.length.state };
  }

  set state({ length }: RewardsState) {
    this.length.state = length;
  }
}
