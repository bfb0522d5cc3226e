import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { openPolicy } from '../../src/generation/policy.js';
import { Scorer } from '../../src/generation/scorer.js';
import { zeros, type Tensor } from '../../src/graph/tensor.js';
import { learningRate } from '../../src/optim/schedules.js';
import type { MaskedSequence } from '../../src/models/packed-tokens.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { dpoGraph } from '../../src/stages/dpo/graph.js';
import { dpoStep } from '../../src/stages/dpo/step.js';
import { Learner } from '../../src/training/learner.js';
import { excess, golden, goldenJson, goldenTensors } from '../support/golden.js';

const pairs = z
  .array(z.object({ prompt_ids: z.array(z.int()), chosen_ids: z.array(z.int()), rejected_ids: z.array(z.int()) }))
  .parse(goldenJson('dpo/pairs.json'));
const recording = z.object({
  args: z.object({
    per_device_train_batch_size: z.int(),
    gradient_accumulation_steps: z.int().default(1),
    loss_type: z.tuple([z.enum(['sigmoid', 'robust', 'ipo'])]),
    beta: z.number(),
    label_smoothing: z.number().default(0),
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

const sample = (prompt: readonly number[], text: readonly number[]): MaskedSequence => ({
  inputIds: [...prompt, ...text],
  completionMask: [...prompt.map(() => 0 as const), ...text.map(() => 1 as const)],
});
const chosen = pairs.map(({ prompt_ids, chosen_ids }) => sample(prompt_ids, chosen_ids));
const rejected = pairs.map(({ prompt_ids, rejected_ids }) => sample(prompt_ids, rejected_ids));

it.each(['sigmoid', 'robust', 'ipo', 'accumulated'])("steps of TRL's DPOTrainer: %s", async (name) => {
  const { args, log, final_f32_vs_f64_max_abs: noise } = recording.parse(goldenJson(`dpo/${name}.json`));
  const policy = await openPolicy(golden('qwen3/model'));
  const initial = await goldenTensors('dpo/initial.safetensors');
  const lora = {
    r: 4,
    alpha: 8,
    dropout: 0,
    targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
  };
  const { context, loss } = dpoGraph(policy.config, lora, {
    lossType: args.loss_type[0],
    beta: args.beta,
    labelSmoothing: args.label_smoothing,
    quantization: 'float32',
  });
  const learner = await Learner.create(runtime, {
    graph: context.graph,
    loss,
    trainable: context.loraWeights,
    initial,
    frozen: policy.model.weights,
    adamw: { weightDecay: args.weight_decay, maxGradNorm: args.max_grad_norm },
  });
  const scorer = await Scorer.create(runtime, { ...policy.model, lora });
  const nothing = [...initial].map(([weight, { shape }]): [string, Tensor] => [weight, zeros('float32', shape)]);
  const options = { temperature: 1, batchSize: 4, adapter: Object.fromEntries(nothing) };
  const logps = async (texts: readonly MaskedSequence[]): Promise<number[]> =>
    (await scorer.logProbabilities(texts, options)).map((each) => each.reduce((a, b) => a + b, 0));
  const [ofChosen, ofRejected] = [await logps(chosen), await logps(rejected)];

  const size = args.per_device_train_batch_size;
  const schedule = {
    name: 'linear',
    baseRate: args.learning_rate,
    warmupSteps: args.warmup_steps,
    totalSteps: args.max_steps,
  } as const;
  let tokens = 0;
  for (let step = 0; step < args.max_steps; step++) {
    const batches = Array.from({ length: args.gradient_accumulation_steps }, (_, k) => {
      const start = (step * args.gradient_accumulation_steps + k) * size;
      const ids = Array.from({ length: size }, (__, i) => (start + i) % pairs.length);
      return {
        texts: [...ids.map((i) => chosen[i]!), ...ids.map((i) => rejected[i]!)],
        reference: ids.map((i) => ({ chosen: ofChosen[i]!, rejected: ofRejected[i]! })),
      };
    });
    const rate = learningRate(schedule, step);
    const { tokens: seen, ...metrics } = await dpoStep(learner, batches, rate, args.beta);
    tokens += seen;
    const expected = log[step]!;
    expect(rate).toBeCloseTo(expected['learning_rate']!, 12);
    expect(tokens).toBe(expected['num_tokens']);
    // A loss of 25 has a rounding error 25 times that of a loss of 1.
    const close = (metric: string, tolerance: { atol?: number; rtol?: number }): void => {
      expect(
        excess([metrics[metric]!], [expected[metric]!], tolerance),
        `${metric} of step ${step + 1}`,
      ).toBeLessThanOrEqual(0);
    };
    close('loss', { atol: 1e-5, rtol: 1e-5 });
    close('grad_norm', { rtol: 1e-3 });
    for (const metric of ['rewards/chosen', 'rewards/rejected', 'rewards/margins']) close(metric, { atol: 1e-4 });
    for (const metric of ['logps/chosen', 'logps/rejected']) close(metric, { atol: 1e-3 });
    close('entropy', { atol: 1e-4 });
    // While policy and reference are the same, which text is ahead is a matter of rounding.
    if (Math.abs(expected['rewards/margins']!) > 1e-4) close('rewards/accuracies', {});
    close('mean_token_accuracy', { atol: 1e-6 });
  }
  const weights = await learner.optimizer.readWeights();
  for (const [weight, { data }] of await goldenTensors(`dpo/${name}_final.safetensors`)) {
    expect(
      excess(weights.get(weight)!.data, data as Float32Array, { atol: Math.max(1e-4, 4 * noise) }),
      weight,
    ).toBeLessThanOrEqual(0);
  }
  await scorer.dispose();
  await learner.dispose();
});
