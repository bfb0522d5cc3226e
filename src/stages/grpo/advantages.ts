import { UserError } from '../../errors.js';
import { mean, std } from './nan-statistics.js';

/** One reward function's scores of all completions, the completions of a prompt next to each other. */
export interface RewardScores {
  /** The function's name, as in the metrics `rewards/<name>/mean`. */
  readonly name: string;
  readonly weight: number;
  /** One score a completion; null or NaN where the function does not apply. */
  readonly scores: ArrayLike<number | null>;
}

export interface AdvantageSettings {
  /** Completions a prompt. */
  readonly groupSize: number;
  /** What an advantage is divided by: the group's standard deviation, that of all completions, or nothing. */
  readonly scaleRewards: 'group' | 'batch' | 'none';
  /**
   * How several reward functions become one: their weighted sum is normalised, or each is normalised within its group
   * and the weighted sum once more over all completions (`scaleRewards` then has no effect).
   */
  readonly aggregation: 'sum_then_normalize' | 'normalize_then_sum';
}

export interface Advantages {
  /** One a completion; 0 where no reward function applies. */
  readonly advantages: Float64Array;
  /** The weighted sum of the scores, one a completion; NaN where no reward function applies. */
  readonly rewards: Float64Array;
  /**
   * TRL's: `rewards/<name>/mean`, `rewards/<name>/std`, `reward`, `reward_std` (over all completions) and
   * `frac_reward_zero_std` (completions compared with rewards that are all equal). NaN where nothing was scored.
   */
  readonly metrics: Readonly<Record<string, number>>;
}

/** Keeps the advantages of a group of nearly equal rewards small. */
const epsilon = 1e-4;
/** A standard deviation up to this is none. */
const zeroTolerance = 1e-8;

/**
 * Group-relative advantages (Shao et al. 2024, DeepSeekMath) as TRL's GRPOTrainer computes them:
 * (reward − mean of the group) / (std + 1e-4), std with Bessel's correction. Scores that do not exist are left out of
 * means and deviations; a deviation over fewer than two scores is undefined, which makes the advantage 0.
 *
 * @throws UserError when a score is infinite
 * @throws RangeError when the functions' scores differ in number or do not fill whole groups
 */
export function groupAdvantages(functions: readonly RewardScores[], settings: AdvantageSettings): Advantages {
  const columns = functions.map((rewardFunction) => scoresOf(rewardFunction));
  const weights = functions.map(({ weight }) => weight);
  const count = columns[0]?.length ?? 0;
  const { groupSize } = settings;
  if (columns.some((column) => column.length !== count)) {
    throw new RangeError(`reward functions gave ${columns.map((column) => column.length).join(', ')} scores`);
  }
  if (!(groupSize >= 1) || count % groupSize !== 0 || count === 0) {
    throw new RangeError(`${count} completions do not fill groups of ${groupSize}`);
  }

  const rewards = weightedSum(columns, weights);
  const { advantages, deviations } =
    settings.aggregation === 'sum_then_normalize'
      ? normalizeSum(rewards, settings)
      : sumNormalized(columns, weights, groupSize);
  const withoutSpread = deviations.reduce((sum, deviation) => sum + (deviation <= zeroTolerance ? 1 : 0), 0);
  const metrics: Record<string, number> = {};
  for (const [index, { name }] of functions.entries()) {
    metrics[`rewards/${name}/mean`] = mean(columns[index]!);
    metrics[`rewards/${name}/std`] = std(columns[index]!);
  }
  metrics['reward'] = mean(rewards);
  metrics['reward_std'] = std(rewards);
  metrics['frac_reward_zero_std'] = withoutSpread / count;
  return { advantages: advantages.map((advantage) => (Number.isNaN(advantage) ? 0 : advantage)), rewards, metrics };
}

interface Normalized {
  readonly advantages: Float64Array;
  /** Standard deviation of the rewards that each completion is compared with. */
  readonly deviations: Float64Array;
}

function normalizeSum(rewards: Float64Array, { groupSize, scaleRewards }: AdvantageSettings): Normalized {
  const means = perGroup(rewards, groupSize, mean);
  const deviations = perGroup(rewards, scaleRewards === 'batch' ? rewards.length : groupSize, spread);
  const divisor = (index: number): number => (scaleRewards === 'none' ? 1 : deviations[index]! + epsilon);
  return { advantages: rewards.map((reward, index) => (reward - means[index]!) / divisor(index)), deviations };
}

function sumNormalized(columns: readonly Float64Array[], weights: readonly number[], groupSize: number): Normalized {
  const normalized = columns.map((scores) => {
    const means = perGroup(scores, groupSize, mean);
    const deviations = perGroup(scores, groupSize, spread);
    return scores.map((score, index) => (score - means[index]!) / (deviations[index]! + epsilon));
  });
  const sums = weightedSum(normalized, weights, columns);
  const center = mean(sums);
  const deviation = spread(sums);
  return {
    advantages: sums.map((sum) => (sum - center) / (deviation + epsilon)),
    deviations: sums.map(() => deviation),
  };
}

/** Standard deviation, where a single completion has none to speak of rather than an undefined one. */
const spread = (values: Float64Array): number => (values.length === 1 ? 0 : std(values));

/** Σ weight · value over the functions that have a value; NaN where `scored` has none at all. */
function weightedSum(
  columns: readonly Float64Array[],
  weights: readonly number[],
  scored: readonly Float64Array[] = columns,
): Float64Array {
  return columns[0]!.map((_, index) => {
    if (scored.every((column) => Number.isNaN(column[index]!))) return Number.NaN;
    return columns.reduce((sum, column, which) => {
      const term = column[index]! * weights[which]!;
      return Number.isNaN(term) ? sum : sum + term;
    }, 0);
  });
}

/** A statistic of each completion's group, one a completion. */
function perGroup(values: Float64Array, groupSize: number, statistic: (group: Float64Array) => number): Float64Array {
  const out = new Float64Array(values.length);
  for (let start = 0; start < values.length; start += groupSize) {
    out.fill(statistic(values.subarray(start, start + groupSize)), start, start + groupSize);
  }
  return out;
}

function scoresOf({ name, scores }: RewardScores): Float64Array {
  const column = Float64Array.from(scores, (score) => score ?? Number.NaN);
  const infinite = column.findIndex((score) => Math.abs(score) === Infinity);
  if (infinite === -1) return column;
  throw new UserError({
    code: 'reward.infinite',
    message: `Reward function \`${name}\` gave ${column[infinite]!} for completion ${infinite}.`,
    where: `rewards/${name}`,
    fix: 'Return finite scores, and null for a completion that the function cannot score.',
  });
}
