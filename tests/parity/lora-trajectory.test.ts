import { afterAll, expect, it } from 'vitest';
import { z } from 'zod';
import { elementCount, wrap, type Tensor } from '../../src/graph/tensor.js';
import { learningRate } from '../../src/optim/schedules.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { sftStep } from '../../src/stages/sft.js';
import { goldenLearner } from '../support/golden-learner.js';
import { excess, goldenJson, goldenTensors, take } from '../support/golden.js';
import { samplesOf } from '../support/packed.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const recordSchema = z.object({
  optimizer: z.object({
    lr: z.number(),
    weight_decay: z.number(),
    clip_grad_norm: z.number(),
    warmup_steps: z.int(),
    total_steps: z.int(),
  }),
  steps: z.array(z.object({ loss: z.number(), grad_norm: z.number(), lr: z.number() })),
});

it('ten updates of an adapter go as PyTorch and PEFT made them', async () => {
  const { optimizer, steps } = recordSchema.parse(goldenJson('lora/trajectory/log.json'));
  const tensors = await goldenTensors('lora/trajectory/batches.safetensors');
  const learner = await goldenLearner(runtime, 'lora/adapter', {
    weightDecay: optimizer.weight_decay,
    maxGradNorm: optimizer.clip_grad_norm,
  });
  const schedule = {
    name: 'linear',
    baseRate: optimizer.lr,
    warmupSteps: optimizer.warmup_steps,
    totalSteps: optimizer.total_steps,
  } as const;

  expect(steps).toHaveLength(10);
  for (const [step, recorded] of steps.entries()) {
    const shape = take(tensors, 'input_ids').shape.slice(1);
    const size = elementCount(shape);
    const column = (name: string): Tensor =>
      wrap('int32', shape, (take(tensors, name).data as Int32Array).slice(step * size, (step + 1) * size));
    const samples = samplesOf(column('input_ids'), column('attention_mask'), column('completion_mask'));
    const rate = learningRate(schedule, step);
    const metrics = await sftStep(learner, [samples], rate, []);
    expect(Math.abs(rate - recorded.lr)).toBeLessThanOrEqual(1e-12);
    expect(Math.abs(metrics['loss']! - recorded.loss)).toBeLessThanOrEqual(1e-4);
    expect(Math.abs(metrics['grad_norm']! / recorded.grad_norm - 1)).toBeLessThanOrEqual(1e-3);
  }
  const final = await goldenTensors('lora/trajectory/final_adapter.safetensors');
  const weights = await learner.optimizer.readWeights();
  expect(weights.size).toBe(final.size);
  for (const [name, { data }] of final) {
    expect(excess(take(weights, name).data, data, { atol: 2e-4 }), name).toBeLessThanOrEqual(0);
  }
});
