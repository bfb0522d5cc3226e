import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { wrap } from '../../src/graph/tensor.js';
import type { MaskedSequence } from '../../src/models/packed-tokens.js';
import { learningRate } from '../../src/optim/schedules.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { sftStep } from '../../src/stages/sft.js';
import { scheduleOf } from '../../src/training/schedule.js';
import { goldenLearner } from '../support/golden-learner.js';
import { excess, goldenJson, goldenTensors, take } from '../support/golden.js';
import { samplesOf } from '../support/packed.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

/** What a label says of a token that is not learned. */
const IGNORED = -100;

const ids = z.array(z.array(z.int()));
const recordSchema = z.object({
  args: z.object({
    per_device_train_batch_size: z.int(),
    gradient_accumulation_steps: z.int(),
    max_steps: z.int(),
    learning_rate: z.number(),
    lr_scheduler_type: z.literal('linear'),
    warmup_steps: z.int(),
    weight_decay: z.number(),
    max_grad_norm: z.number(),
    loss_type: z.enum(['nll', 'dft']).default('nll'),
  }),
  /** A line a step, and one on the whole run. */
  log: z.array(z.looseObject({ step: z.int() })),
  columns: z.object({ input_ids: ids, labels: ids }),
});
const lineSchema = z.object({
  loss: z.number(),
  grad_norm: z.number(),
  learning_rate: z.number(),
  entropy: z.number(),
  mean_token_accuracy: z.number(),
  num_tokens: z.number(),
});

const recordOf = (name: string) => recordSchema.parse(goldenJson(`sft/${name}/log.json`));

/** The micro-batches that reached the loss, in order. */
async function recordedBatches(name: string): Promise<MaskedSequence[][]> {
  const tensors = await goldenTensors(`sft/${name}/batches.safetensors`);
  const micros = [...new Set([...tensors.keys()].map((key) => key.split('.')[0]!))].sort();
  return micros.map((micro) => {
    const [ids, mask, labels] = ['input_ids', 'attention_mask', 'labels'].map((column) =>
      take(tensors, `${micro}.${column}`),
    );
    const learned = (labels!.data as Int32Array).map((label) => (label === IGNORED ? 0 : 1));
    return samplesOf(ids!, mask!, wrap('int32', labels!.shape, learned));
  });
}

describe.each(['batch4', 'accum2', 'full_sequence', 'dft'])('sft %s', (name) => {
  it('has the recorded batches from the recorded rows', async () => {
    const { args, columns } = recordOf(name);
    const rows = columns.input_ids.map((inputIds, row) => ({
      inputIds,
      completionMask: columns.labels[row]!.map((label): 0 | 1 => (label === IGNORED ? 0 : 1)),
    }));
    for (const [i, recorded] of (await recordedBatches(name)).entries()) {
      const size = args.per_device_train_batch_size;
      const start = (i * size) % rows.length;
      expect(rows.slice(start, start + size)).toEqual(recorded);
    }
  });

  it('logs and learns what is recorded, step by step', async () => {
    const { args, log } = recordOf(name);
    const batches = await recordedBatches(name);
    const adamw = { weightDecay: args.weight_decay, maxGradNorm: args.max_grad_norm };
    const learner = await goldenLearner(runtime, `sft/${name}/initial_adapter`, adamw, args.loss_type);
    const schedule = scheduleOf(
      {
        schedule: args.lr_scheduler_type,
        learningRate: args.learning_rate,
        warmupSteps: args.warmup_steps,
        warmupRatio: 0,
      },
      args.max_steps,
    );
    expect(log).toHaveLength(args.max_steps + 1);
    let tokensSeen = 0;
    for (let step = 0; step < args.max_steps; step++) {
      const recorded = lineSchema.parse(log[step]);
      const perStep = args.gradient_accumulation_steps;
      const rate = learningRate(schedule, step);
      const metrics = await sftStep(learner, batches.slice(step * perStep, (step + 1) * perStep), rate, []);
      tokensSeen += metrics.tokens;
      const at = `step ${step + 1}`;
      expect(Math.abs(rate - recorded.learning_rate), at).toBeLessThanOrEqual(1e-12);
      expect(Math.abs(metrics['loss']! - recorded.loss), at).toBeLessThanOrEqual(1e-4);
      expect(Math.abs(metrics['grad_norm']! / recorded.grad_norm - 1), at).toBeLessThanOrEqual(1e-3);
      expect(Math.abs(metrics['entropy']! - recorded.entropy), at).toBeLessThanOrEqual(1e-4);
      // A share of at most 75 tokens, recorded as float32.
      expect(Math.abs(metrics['mean_token_accuracy']! - recorded.mean_token_accuracy), at).toBeLessThanOrEqual(
        2 ** -24,
      );
      expect(tokensSeen, at).toBe(recorded.num_tokens);
    }
    const final = await goldenTensors(`sft/${name}/final_adapter.safetensors`);
    const weights = await learner.optimizer.readWeights();
    expect(weights.size).toBe(final.size);
    for (const [weight, { data }] of final) {
      expect(excess(take(weights, weight).data, data, { atol: 2e-4 }), weight).toBeLessThanOrEqual(0);
    }
    await learner.dispose();
  });
});
