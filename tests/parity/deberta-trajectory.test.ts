import { afterAll, expect, it } from 'vitest';
import { z } from 'zod';
import { loadTensors, openModelFolder } from '../../src/checkpoints/model-folder.js';
import type { Tensor } from '../../src/graph/tensor.js';
import { learningRate, warmupStepsOf } from '../../src/optim/schedules.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { classificationFeeds, classificationGraph } from '../../src/training/classification.js';
import { isDecayed, Learner } from '../../src/training/learner.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const recordSchema = z.object({
  optimizer: z.object({
    lr: z.number(),
    weight_decay: z.number(),
    no_decay_parameters: z.array(z.string()),
    clip_grad_norm: z.number(),
    warmup_steps: z.int(),
    total_steps: z.int(),
  }),
  steps: z.array(
    z.object({ loss: z.number(), grad_norm: z.number(), lr: z.number(), logits: z.array(z.array(z.number())) }),
  ),
});

it('eight updates of a whole classifier go as PyTorch and transformers made them', async () => {
  const { optimizer, steps } = recordSchema.parse(goldenJson('deberta/trajectory/log.json'));
  const folder = await openModelFolder(golden('deberta/model'));
  if (folder.config.modelType !== 'deberta-v2') throw new Error('the recorded model is no DeBERTa-v2');
  const { config } = folder;
  // The recorded model drops nothing out, so R-Drop would see one pass twice.
  const { graph, loss, context } = classificationGraph(config, { rdropAlpha: 4 });
  const names = [...context.weights.keys()];
  expect(names.filter((name) => !isDecayed(name)).sort()).toEqual([...optimizer.no_decay_parameters].sort());
  const learner = await Learner.create(runtime, {
    graph,
    loss,
    trainable: context.weights,
    initial: await loadTensors(folder.weights, names),
    adamw: { weightDecay: optimizer.weight_decay, maxGradNorm: optimizer.clip_grad_norm },
  });
  const { lr, total_steps: totalSteps } = optimizer;
  const schedule = { name: 'linear', baseRate: lr, warmupSteps: warmupStepsOf(0.1, totalSteps), totalSteps } as const;
  expect(schedule.warmupSteps).toBe(optimizer.warmup_steps);

  const batches = await goldenTensors('deberta/trajectory/batches.safetensors');
  /** The part of a recorded tensor that belongs to a step. */
  const at = (name: string, step: number): Int32Array => {
    const { shape, data } = take(batches, name);
    const size = data.length / shape[0]!;
    return (data as Int32Array).slice(step * size, (step + 1) * size);
  };
  expect(steps).toHaveLength(8);
  for (const [step, recorded] of steps.entries()) {
    const [batch, length] = take(batches, 'input_ids').shape.slice(1) as [number, number];
    const tokens = { inputIds: at('input_ids', step), attentionMask: at('attention_mask', step), batch, length };
    const rate = learningRate(schedule, step);
    expect(Math.abs(rate - recorded.lr)).toBeLessThanOrEqual(1e-12);
    const feeds = classificationFeeds(config, tokens, [...at('labels', step)]);
    const { reports, gradNorm } = await learner.step([feeds], rate);
    const report: Record<string, Tensor> = reports[0]!;
    expect(Math.abs(Number(report['loss']!.data[0]) - recorded.loss)).toBeLessThanOrEqual(1e-5);
    const logits = report['logits']!.data as Float32Array;
    expect(excess(logits, recorded.logits.flat(), { atol: 1e-5 })).toBeLessThanOrEqual(0);
    expect(Math.abs(gradNorm / recorded.grad_norm - 1)).toBeLessThanOrEqual(1e-5);
  }
  const final = await goldenTensors('deberta/trajectory/final.safetensors');
  expect(final.size).toBeGreaterThan(0);
  const weights = await learner.optimizer.readWeights();
  for (const [name, { data }] of final) {
    expect(excess(take(weights, name).data, data, { atol: 1e-5 }), name).toBeLessThanOrEqual(0);
  }
});
