import type { ReportChart } from './input.js';
import type { MetricSeries } from './metric-series.js';

interface ChartPlan {
  title: string;
  /** Metric → its name in the legend. */
  metrics: Record<string, string>;
  note?: string;
}

/** Curves worth showing, under the metric names of Hugging Face's Trainer and of TRL, most telling first. */
const plans: readonly ChartPlan[] = [
  { title: 'Reward', metrics: { reward: 'reward', eval_reward: 'validation' }, note: 'Mean over the completions.' },
  { title: 'Loss', metrics: { loss: 'training', eval_loss: 'validation' } },
  {
    title: 'KL to the reference',
    metrics: { kl: 'KL' },
    note: 'Nats a token; how far the policy has moved from where it started.',
  },
  {
    title: 'Completion length',
    metrics: { 'completions/mean_length': 'mean', 'completions/mean_terminated_length': 'mean of those that ended' },
    note: 'Tokens; a reward that rises only together with length deserves suspicion.',
  },
  {
    title: 'Completions cut at the limit',
    metrics: { 'completions/clipped_ratio': 'share' },
    note: 'Those that did not reach EOS.',
  },
  {
    title: 'Reward spread',
    metrics: { reward_std: 'standard deviation', frac_reward_zero_std: 'groups without spread' },
    note: 'A group whose rewards are all equal teaches nothing.',
  },
  {
    title: 'What the reward pays for',
    metrics: {
      'gaming/length_correlation': 'correlation with length',
      'gaming/prompt_share': 'share of the prompt',
      'gaming/beyond_human': 'rated beyond human jokes',
    },
    note: 'A reward that correlates with length, or hangs on the prompt alone, is not one for jokes.',
  },
  {
    title: 'Length against the start',
    metrics: { 'gaming/length_ratio': 'ratio' },
    note: 'Mean characters of the last rollouts over those of the first.',
  },
  {
    title: 'Variety and copying',
    metrics: {
      'gaming/distinct_2': 'distinct-2 of equal amounts of text',
      'gaming/self_similarity': 'self-similarity',
      'gaming/copied': 'copied from training',
    },
  },
  { title: 'Entropy', metrics: { entropy: 'entropy', eval_entropy: 'validation' }, note: 'Nats a token.' },
  {
    title: 'Clipped ratios',
    metrics: { 'clip_ratio/low_mean': 'low', 'clip_ratio/high_mean': 'high', 'clip_ratio/region_mean': 'either' },
    note: 'Share of tokens whose probability ratio left the trust region.',
  },
  {
    title: 'Token accuracy',
    metrics: { mean_token_accuracy: 'training', eval_mean_token_accuracy: 'validation' },
  },
  {
    title: 'R-Drop',
    metrics: { ce: 'cross entropy', rdrop_kl: 'KL of the two passes' },
    note: 'The parts of the training loss, in nats: being right, and agreeing with oneself under other dropout.',
  },
  {
    title: 'Validation quality',
    metrics: { eval_accuracy: 'accuracy', eval_f1: 'F1', eval_roc_auc: 'ROC AUC' },
  },
  { title: 'Gradient norm', metrics: { grad_norm: 'before clipping' } },
  { title: 'Learning rate', metrics: { learning_rate: 'learning rate' } },
];

/** The charts that a run's metrics fill; a metric that was never logged is left out. */
export function stageCharts(metrics: MetricSeries): ReportChart[] {
  return plans.flatMap(({ title, metrics: names, note }) => {
    const series = Object.entries(names).flatMap(([metric, name]) => {
      const points = metrics[metric];
      return points === undefined ? [] : [{ name, points }];
    });
    return series.length === 0 ? [] : [{ title, series, ...(note !== undefined && { note }) }];
  });
}
