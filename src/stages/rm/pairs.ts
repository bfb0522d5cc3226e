import { fingerprint } from '../../checkpoints/fingerprint.js';
import { openModelFolder } from '../../checkpoints/model-folder.js';
import type { RmConfig } from '../../config/stages.js';
import { writeRunReport } from '../../evaluation/run-report.js';
import { Classifier } from '../../rewards/classifier.js';
import { requireMemory } from '../../memory/require.js';
import { textLimit } from '../../rewards/reward-model.js';
import type { StageContext } from '../../runs/events.js';
import { openRunFolder } from '../../runs/run-folder.js';
import { collateTexts } from '../../text/collate.js';
import { loadTokenizer } from '../../text/load-tokenizer.js';
import { assertTokenizerFits } from '../../text/tokenizer.js';
import { bradleyTerryFeeds, bradleyTerryGraph, rewardMetrics } from '../../training/bradley-terry.js';
import { classifierLora, classifierStart } from '../../training/classifier-lora.js';
import { classifierConfig } from '../../training/classifier-start.js';
import { chunks } from '../../training/chunks.js';
import { classifierDropoutFeeds } from '../../training/dropout.js';
import { Learner } from '../../training/learner.js';
import { trainLoop } from '../../training/loop.js';
import { openRuntime } from '../../training/open-runtime.js';
import { EpochOrder } from '../../training/order.js';
import { loadPairs, type Pair } from '../../training/pairs.js';
import { scheduleOf } from '../../training/schedule.js';
import { writeClassifier } from './write-classifier.js';
import { pairsMemory, pairsWays } from './memory.js';

/** A label of its own: the reward, a number without a scale. */
const LABELS = ['reward'];

/**
 * The reward model of preferences: a head of one label on prompt + text as one, all parameters or an adapter and the head learning, so that by
 * Bradley and Terry (1952) the chosen text of a pair beats the rejected one. There are no labels here and so no classifier's
 * figures: held-out pairs give loss, accuracy and margin, and the lowest loss chooses the weights.
 *
 * Leaves `model/` in Hugging Face layout, with `num_labels` 1 as TRL's RewardTrainer does, and `adapter/` where one learned.
 */
export async function rewardHead(config: RmConfig, context: StageContext): Promise<string> {
  const section = config.rm;
  const pairs = await loadPairs(config.data);
  const folder = await openModelFolder(config.model);
  const tokenizer = await loadTokenizer(config.model);
  const modelConfig = classifierConfig(folder, section.dropout, tokenizer.special.pad, LABELS);
  const maxLength = textLimit(modelConfig, section.maxLength);
  assertTokenizerFits(tokenizer, modelConfig.vocabSize, config.model);
  requireMemory('rm', config, {
    plan: () => pairsMemory(modelConfig, config),
    ways: () => pairsWays(modelConfig, config),
  });
  const lora = classifierLora(modelConfig, section.lora);
  const training = bradleyTerryGraph(modelConfig, section, lora);
  const start = classifierStart(folder, training.context, config.seed);

  const fingerprints = { ...pairs.fingerprints, model: await fingerprint(config.model) };
  const onEvent = context.onEvent.bind(context);
  const run = await openRunFolder({
    ...config,
    stage: 'rm',
    config,
    batchSize: section.batchSize,
    fingerprints,
    onEvent,
  });
  const runtime = await openRuntime(config, context);
  try {
    if (run.resumeFrom === undefined && start.fresh.length > 0) {
      const message = `The model has no reward head; a fresh one begins to learn: ${start.fresh.join(', ')}.`;
      run.emit({ type: 'warning', code: 'rm.new-head', message });
    }
    const encode = (prompt: string, text: string): number[] => tokenizer.encode(prompt + text, { maxLength });
    const encoded = ({ prompt, chosen, rejected }: Pair): { chosen: number[]; rejected: number[] } => ({
      chosen: encode(prompt, chosen),
      rejected: encode(prompt, rejected),
    });
    const [train, heldOut] = [pairs.train.map(encoded), pairs.validation.map(encoded)];
    const padTokenId = tokenizer.special.pad ?? modelConfig.padTokenId ?? 0;
    const learner = await Learner.create(runtime, {
      graph: training.context.graph,
      loss: training.loss,
      ...start,
      adamw: section,
    });
    const classifier = await Classifier.create(runtime, modelConfig, start.frozen, lora && { lora });

    const atOnce = run.microBatch(section.batchSize);
    const order = new EpochOrder(train.length, section.batchSize, config.seed);
    const totalSteps = order.totalSteps(section.epochs, section.maxSteps);
    run.emit({ type: 'start', stage: 'rm', totalSteps, out: run.path });
    await trainLoop({
      ...section,
      run,
      stage: 'rm',
      signal: context.signal,
      totalSteps,
      stepsPerEpoch: order.stepsPerEpoch,
      evaluateEveryEpoch: true,
      schedule: scheduleOf(section, totalSteps),
      learner,
      replay: context.replay,
      best: { metric: 'eval_loss', direction: 'lower' },
      step: async (step, rate) => {
        const batch = order.at(step).map((i) => train[i]!);
        const feeds = chunks([...batch.entries()], atOnce).map((some) => {
          const sequences = [...some.map(([, { chosen }]) => chosen), ...some.map(([, { rejected }]) => rejected)];
          const rows = [...some.map(([pair]) => 2 * pair), ...some.map(([pair]) => 2 * pair + 1)];
          const tokens = collateTexts(sequences, { padId: padTokenId });
          return learner.accepted({
            ...bradleyTerryFeeds(modelConfig, tokens, batch.length),
            ...classifierDropoutFeeds(modelConfig, { ...config, step }, tokens, rows),
          });
        });
        const { reports, gradNorm } = await learner.step(feeds, rate);
        const rewards = reports.map((report) => [...(report['rewards']!.data as Float32Array)]);
        const chosen = rewards.flatMap((values) => values.slice(0, values.length / 2));
        const rejected = rewards.flatMap((values) => values.slice(values.length / 2));
        return {
          loss: reports.reduce((total, report) => total + Number(report['loss']!.data[0]), 0),
          grad_norm: gradNorm,
          ...rewardMetrics([...chosen, ...rejected]),
        };
      },
      rows: (step) => order.at(step).map((i) => pairs.train[i]!.place),
      evaluate: async () => {
        if (heldOut.length === 0) return {};
        const sequences = [...heldOut.map(({ chosen }) => chosen), ...heldOut.map(({ rejected }) => rejected)];
        const options = { batchSize: atOnce, padTokenId, weights: learner.weights };
        const rewards = (await classifier.logits(sequences, options)).map(([reward]) => reward!);
        const margins = heldOut.map((_, i) => rewards[i]! - rewards[heldOut.length + i]!);
        // −log σ(m) = max(−m, 0) + log(1 + e^−|m|)
        const losses = margins.map((m) => Math.max(-m, 0) + Math.log1p(Math.exp(-Math.abs(m))));
        const metrics = { loss: losses.reduce((a, b) => a + b, 0) / losses.length, ...rewardMetrics(rewards) };
        return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`eval_${name}`, value]));
      },
    });

    await writeClassifier(runtime, run, {
      config: modelConfig,
      base: config.model,
      maxLength,
      lora,
      start,
      learner,
      classifier,
      texts: train.flatMap(({ chosen, rejected }) => [chosen, rejected]),
      padTokenId,
    });
    await writeRunReport(run.path);
    await run.finish();
    return run.path;
  } finally {
    run.close();
    await runtime.close();
  }
}
