import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { loadTensors, openModelFolder } from '../../src/checkpoints/model-folder.js';
import { learningRate } from '../../src/optim/schedules.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { collateTexts } from '../../src/text/collate.js';
import { bradleyTerryFeeds, bradleyTerryGraph, rewardMetrics } from '../../src/training/bradley-terry.js';
import { Learner } from '../../src/training/learner.js';
import { excess, golden, goldenJson, goldenTensors } from '../support/golden.js';

const pairs = z
  .array(z.object({ chosen_ids: z.array(z.int()), rejected_ids: z.array(z.int()) }))
  .parse(goldenJson('bradley_terry/pairs.json'));
const recording = z.object({
  args: z.object({
    per_device_train_batch_size: z.int(),
    center_rewards_coefficient: z.number().default(0),
    learning_rate: z.number(),
    warmup_steps: z.int(),
    max_steps: z.int(),
    weight_decay: z.number(),
    max_grad_norm: z.number(),
  }),
  log: z.array(z.record(z.string(), z.number())),
  final_f32_vs_f64_max_abs: z.number(),
});

let runtime: Runtime;
beforeAll(() => {
  runtime = new Runtime({ threads: 1 });
});
afterAll(() => runtime.close());

it.each(['plain', 'centered'])("steps of TRL's RewardTrainer: %s", async (name) => {
  const { args, log, final_f32_vs_f64_max_abs: noise } = recording.parse(goldenJson(`bradley_terry/${name}.json`));
  const { config: stored, weights: files } = await openModelFolder(golden('deberta/model'));
  const config = { ...stored, labels: ['reward'] };
  const { context, loss } = bradleyTerryGraph(config, { centering: args.center_rewards_coefficient });
  const head = await goldenTensors('bradley_terry/head.safetensors');
  const body = [...context.weights.keys()].filter((weight) => !head.has(weight));
  const learner = await Learner.create(runtime, {
    graph: context.graph,
    loss,
    trainable: context.weights,
    initial: new Map([...(await loadTensors(files, body)), ...head]),
    adamw: { weightDecay: args.weight_decay, maxGradNorm: args.max_grad_norm },
  });
  const size = args.per_device_train_batch_size;
  const schedule = {
    name: 'linear',
    baseRate: args.learning_rate,
    warmupSteps: args.warmup_steps,
    totalSteps: args.max_steps,
  } as const;
  for (let step = 0; step < args.max_steps; step++) {
    const batch = Array.from({ length: size }, (_, i) => pairs[(step * size + i) % pairs.length]!);
    const sequences = [...batch.map(({ chosen_ids }) => chosen_ids), ...batch.map(({ rejected_ids }) => rejected_ids)];
    const feeds = bradleyTerryFeeds(config, collateTexts(sequences, { padId: 0 }), size);
    const { reports, gradNorm } = await learner.step([feeds], learningRate(schedule, step));
    const report = reports[0]!;
    const metrics: Record<string, number> = {
      loss: Number(report['loss']!.data[0]),
      grad_norm: gradNorm,
      ...rewardMetrics(report['rewards']!.data as Float32Array),
    };
    for (const [metric, value] of Object.entries(metrics)) {
      const tolerance = metric === 'grad_norm' ? { rtol: 1e-3 } : metric === 'accuracy' ? {} : { atol: 1e-3 };
      expect(excess([value], [log[step]![metric]!], tolerance), `${metric} of step ${step + 1}`).toBeLessThanOrEqual(0);
    }
  }
  // Adam's first step moves a weight by the sign of its gradient, also where that is nothing but rounding.
  const weights = await learner.optimizer.readWeights();
  const tolerance = { atol: Math.max(1e-4, 4 * noise) };
  for (const [weight, { data }] of await goldenTensors(`bradley_terry/${name}_final.safetensors`)) {
    expect(excess(weights.get(weight)!.data, data as Float32Array, tolerance), weight).toBeLessThanOrEqual(0);
  }
  await learner.dispose();
});
