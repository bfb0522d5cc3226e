import { classify, generate, pipeline, plain, report, score, stage, trainer } from './entries.js';
import type { Entry } from './entry.js';

/**
 * Every command there is; `--help` shows these, in this order, and no others. A new one is one line here and its kind
 * imported from `entries.js`; nothing of it is loaded before it is called.
 */
export const ENTRIES: readonly Entry[] = [
  pipeline('Run a whole recipe.', async () => (await import('../pipeline.js')).runPipeline),
  trainer('pretrain', 'Make a base model.', async () => (await import('../stages/pretrain.js')).pretrain),
  trainer('sft', 'Fine-tune on jokes.', async () => (await import('../stages/sft.js')).sft),
  trainer('rm', 'Train the reward model.', async () => (await import('../stages/rm.js')).rm),
  trainer('grpo', 'Reinforce what is rewarded.', async () => (await import('../stages/grpo.js')).grpo),
  trainer('dpo', 'Learn from pairs of texts.', async () => (await import('../stages/dpo.js')).dpo),
  generate('Write texts.', async () => (await import('../stages/generate.js')).generate),
  score('Log-probabilities of completions.', async () => (await import('../stages/score.js')).score),
  classify('Reward-model logits of texts.', async () => (await import('../stages/classify.js')).classify),
  stage('evaluate', 'Measure a model.', async () => (await import('../stages/evaluate.js')).evaluate),
  report('Report on a run.', async () => (await import('../evaluation/run-report.js')).writeRunReport),
  plain('doctor', 'What this machine can run.', async () => (await import('./doctor/command.js')).setup),
  plain('data check', 'Describe the data and its faults.', async () => (await import('./data/check.js')).setup),
  plain('data pull', 'Fetch the published data.', async () => (await import('./data/pull.js')).setup),
  plain('data split', 'Write the one split as files.', async () => (await import('./data/split.js')).setup),
];
