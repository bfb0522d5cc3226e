import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { learningRate } from '../../src/optim/schedules.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { sftStep } from '../../src/stages/sft.js';
import { packBestFit } from '../../src/text/pack.js';
import { scheduleOf } from '../../src/training/schedule.js';
import { goldenLearner } from '../support/golden-learner.js';
import { excess, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const NAME = 'sft/packing_bfd';
const ids = z.array(z.array(z.int()));
const line = z.object({
  loss: z.number(),
  grad_norm: z.number(),
  learning_rate: z.number(),
  entropy: z.number(),
  mean_token_accuracy: z.number(),
  num_tokens: z.number(),
});
const record = z
  .object({
    args: z.object({
      per_device_train_batch_size: z.int(),
      max_steps: z.int(),
      learning_rate: z.number(),
      lr_scheduler_type: z.literal('linear'),
      warmup_steps: z.int(),
      weight_decay: z.number(),
      max_grad_norm: z.number(),
      max_length: z.int(),
    }),
    log: z.array(z.looseObject({ step: z.int() })),
    columns: z.object({ input_ids: ids, seq_lengths: ids }),
  })
  .parse(goldenJson(`${NAME}/log.json`));
const rows = z
  .object({ input_ids: ids, completion_mask: z.array(z.array(z.union([z.literal(0), z.literal(1)]))) })
  .parse(goldenJson('sft/dataset.json'));
const samples = rows.input_ids.map((inputIds, i) => ({ inputIds, completionMask: rows.completion_mask[i]! }));
const packs = packBestFit(
  samples.map(({ inputIds }) => inputIds.length),
  record.args.max_length,
).map((pack) => pack.map((i) => samples[i]!));

describe('sft packing_bfd', () => {
  it('packs the recorded rows as recorded', () => {
    expect(packs.map((pack) => pack.flatMap(({ inputIds }) => inputIds))).toEqual(record.columns.input_ids);
    expect(packs.map((pack) => pack.map(({ inputIds }) => inputIds.length))).toEqual(record.columns.seq_lengths);
  });

  it('logs what TRL logged and ends at its weights', async () => {
    const { args, log } = record;
    const adamw = { weightDecay: args.weight_decay, maxGradNorm: args.max_grad_norm };
    const learner = await goldenLearner(runtime, `${NAME}/initial_adapter`, adamw);
    const schedule = scheduleOf(
      {
        schedule: args.lr_scheduler_type,
        learningRate: args.learning_rate,
        warmupSteps: args.warmup_steps,
        warmupRatio: 0,
      },
      args.max_steps,
    );
    let tokensSeen = 0;
    for (let step = 0; step < args.max_steps; step++) {
      const recorded = line.parse(log[step]);
      const size = args.per_device_train_batch_size;
      const start = (step * size) % packs.length;
      const batch = packs.slice(start, start + size).flat();
      const metrics = await sftStep(learner, [batch], learningRate(schedule, step), []);
      tokensSeen += metrics.tokens;
      const at = `step ${step + 1}`;
      expect(Math.abs(metrics['loss']! - recorded.loss), at).toBeLessThanOrEqual(1e-4);
      expect(Math.abs(metrics['grad_norm']! / recorded.grad_norm - 1), at).toBeLessThanOrEqual(1e-3);
      expect(Math.abs(metrics['entropy']! - recorded.entropy), at).toBeLessThanOrEqual(1e-4);
      // A share of at most 84 tokens, recorded as float32.
      expect(Math.abs(metrics['mean_token_accuracy']! - recorded.mean_token_accuracy), at).toBeLessThanOrEqual(
        2 ** -24,
      );
      expect(tokensSeen, at).toBe(recorded.num_tokens);
    }
    const final = await goldenTensors(`${NAME}/final_adapter.safetensors`);
    const weights = await learner.optimizer.readWeights();
    for (const [weight, { data }] of final) {
      expect(excess(take(weights, weight).data, data, { atol: 2e-4 }), weight).toBeLessThanOrEqual(0);
    }
    await learner.dispose();
  });
});
