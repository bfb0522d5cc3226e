import type { RewardsConfig } from '../../config/rewards.js';
import { requireTokenizer } from '../../generation/policy.js';
import type { LengthControl } from '../../rewards/length-control.js';
import type { RewardRow, Scores } from '../../rewards/reward.js';
import { logOdds, RewardModel, type TextPair } from '../../rewards/reward-model.js';
import type { Runtime } from '../../runtime/runtime.js';
import { characters } from '../../text/characters.js';
import type { Metrics } from '../../training/loop.js';
import type { RewardSource, Scoring } from './reward-source.js';

type Settings = RewardsConfig['model'] & { batchSize: number };

/** Fewer human texts than this say nothing of the best per cent of them. */
const MIN_HUMAN_TEXTS = 50;

/** The reward model as a reward: a logit or the log-odds of "humorous", at a temperature, its length taken out if asked. */
export class ModelReward implements RewardSource {
  readonly name = 'reward_model';
  /** Share of the newest completions that are rated above 99 % of human texts; undefined where these are not known. */
  beyondHuman: number | undefined;
  /** What 99 % of human texts do not exceed. */
  #ceiling: number | undefined;

  private constructor(
    private readonly model: RewardModel,
    private readonly settings: Settings,
    private readonly length: LengthControl,
  ) {}

  /** @throws UserError when the folder holds no reward model with a tokenizer */
  static async open(runtime: Runtime, dir: string, settings: Settings, length: LengthControl): Promise<ModelReward> {
    const model = await RewardModel.open(runtime, dir, settings);
    requireTokenizer(model);
    return new ModelReward(model, settings, length);
  }

  /** From now on at most this many texts are rated at once. */
  limitBatches(most: number): void {
    this.settings.batchSize = Math.min(this.settings.batchSize, most);
  }

  get weight(): number {
    return this.settings.weight;
  }

  async score(rows: readonly RewardRow[], scoring: Scoring): Promise<{ scores: Scores; metrics?: Metrics }> {
    const raw = await this.#rate(rows);
    const ceiling = this.#ceiling;
    this.beyondHuman =
      ceiling === undefined ? undefined : raw.filter((score) => score > ceiling).length / Math.max(1, raw.length);
    if (this.settings.lengthControl === 'none') return { scores: raw };
    const lengths = rows.map(({ completion }) => characters(completion).length);
    const { scores, slope } = this.length.apply(lengths, raw, scoring);
    const metrics = {
      'rewards/reward_model/raw_mean': raw.reduce((a, b) => a + b, 0) / raw.length,
      'rewards/reward_model/length_slope': slope,
    };
    return { scores, metrics };
  }

  /** Notes how human texts are rated; too few of them change nothing. */
  async calibrate(pairs: readonly TextPair[]): Promise<void> {
    if (pairs.length < MIN_HUMAN_TEXTS) return;
    const sorted = (await this.#rate(pairs)).sort((a, b) => a - b);
    this.#ceiling = sorted[Math.ceil(0.99 * sorted.length) - 1]!;
  }

  async #rate(pairs: readonly TextPair[]): Promise<number[]> {
    const { score, temperature, batchSize } = this.settings;
    const logits = await this.model.pairLogits(pairs, { batchSize });
    return logits.map((row) => (score === 'humorous' ? row.at(-1)! : logOdds(row)) / temperature);
  }
}
