import { afterAll, describe, expect, it } from 'vitest';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats, readHeader } from '../../src/checkpoints/safetensors.js';
import type { Tensor } from '../../src/graph/tensor.js';
import type { LossType } from '../../src/config/grpo-loss.js';
import { plainLoss } from '../../src/nn/grpo/settings.js';
import { Runtime } from '../../src/runtime/runtime.js';
import type { RolloutSample } from '../../src/stages/grpo/batch.js';
import { grpoGraph } from '../../src/stages/grpo/graph.js';
import { completionMetrics } from '../../src/stages/grpo/metrics.js';
import { grpoStep } from '../../src/stages/grpo/step.js';
import { groupAdvantages } from '../../src/stages/grpo/advantages.js';
import { Learner } from '../../src/training/learner.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

interface Run {
  args: {
    per_device_train_batch_size: number;
    gradient_accumulation_steps?: number;
    steps_per_generation: number;
    learning_rate: number;
    loss_type: LossType;
    beta: number;
    temperature: number;
    weight_decay?: number;
    max_completion_length: number;
    epsilon_high?: number;
    use_bias_correction_kl?: boolean;
    scale_rewards?: 'group' | 'batch' | 'none';
  };
  log: Record<string, number>[];
  /** The same run in PyTorch with another attention kernel. */
  log_sdpa: Record<string, number>[];
  final_eager_vs_sdpa_max_abs: number;
  generations: { completion_ids: number[][]; rewards: number[]; at_global_step: number }[];
}

type Recorded = ReadonlyMap<string, Tensor<'float32' | 'int32'>>;

const lora = {
  r: 4,
  alpha: 8,
  dropout: 0,
  targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
};

async function adapter(path: string): Promise<Map<string, Tensor<'float32'>>> {
  const { tensors } = await readHeader(golden(path));
  return new Map(
    await Promise.all([...tensors.values()].map(async (info) => [info.name, await readFloats(info)] as const)),
  );
}

/** What one call of TRL's loss received: prompts padded on the left, completions on the right. */
function samplesOf(micro: Recorded, prefix: string): RolloutSample[] {
  const [batch, width] = take(micro, `${prefix}.completion_ids`).shape as [number, number];
  const promptWidth = take(micro, `${prefix}.prompt_ids`).shape[1]!;
  const row = (name: string, mask: string, i: number, size: number): number[] => {
    const kept = take(micro, `${prefix}.${mask}`).data.subarray(i * size, (i + 1) * size);
    return [...take(micro, `${prefix}.${name}`).data.subarray(i * size, (i + 1) * size)].filter(
      (_, t) => kept[t] === 1,
    );
  };
  const old = micro.has(`${prefix}.old_per_token_logps`) ? 'old_per_token_logps' : 'per_token_logps';
  return Array.from({ length: batch }, (_, i) => {
    const completionIds = row('completion_ids', 'completion_mask', i, width);
    return {
      promptIds: row('prompt_ids', 'prompt_mask', i, promptWidth),
      // A truncated completion that is left out of the loss has an empty mask.
      completionIds,
      advantage: take(micro, `${prefix}.advantages`).data[i]!,
      oldLogProbs: row(old, 'completion_mask', i, width),
      refLogProbs: row('ref_per_token_logps', 'completion_mask', i, width),
      learned: completionIds.length > 0,
    };
  });
}

/**
 * The recommended tolerance, or 40 times the difference between two attention kernels of PyTorch where that is more. There
 * the run is ill-conditioned (the second pass over a rollout in iter2_dapo, where 90 % of the ratios are clipped): Adam's
 * first step moves a weight by the full rate whatever the size of its gradient, so float32 noise in the smallest
 * gradients becomes a difference of weights. The two kernels share most of their roundings; against float64 gradients
 * PyTorch's float32 ones and ours are off alike (1.6e-6 and 1.5e-6).
 */
const tolerance = (recommended: number, gauge: number): number => Math.max(recommended, 40 * gauge);

describe.each(['iter1_grpo', 'iter2_dapo', 'accum2_bnpo', 'batch8_drgrpo'])('GRPO run %s', (name) => {
  it('goes as recorded, step by step', async () => {
    const {
      args,
      log,
      log_sdpa: gauge,
      final_eager_vs_sdpa_max_abs: noise,
    } = goldenJson(`grpo_run/${name}/run.json`) as Run;
    const micro = await goldenTensors(`grpo_run/${name}/micro_batches.safetensors`);
    const folder = await openModelFolder(golden('qwen3/model'));
    if (folder.config.kind !== 'causal') throw new Error('the recording is no Qwen3');
    const settings = {
      ...plainLoss,
      lossType: args.loss_type,
      beta: args.beta,
      epsilonHigh: args.epsilon_high ?? 0.2,
      useBiasCorrectionKl: args.use_bias_correction_kl ?? true,
    };
    const { context, loss } = grpoGraph(folder.config, lora, { ...settings, temperature: args.temperature });
    const learner = await Learner.create(runtime, {
      graph: context.graph,
      loss,
      trainable: context.loraWeights,
      initial: await adapter(`grpo_run/${name}/initial_adapter/adapter_model.safetensors`),
      frozen: folder.weights,
      adamw: { weightDecay: args.weight_decay ?? 0, maxGradNorm: 1 },
    });
    const accumulation = args.gradient_accumulation_steps ?? 1;
    for (const [step, line] of log.filter((each) => 'loss' in each).entries()) {
      const batches = Array.from({ length: accumulation }, (_, i) =>
        samplesOf(micro, `micro${String(step * accumulation + i).padStart(2, '0')}`),
      );
      const items = take(micro, `micro${String(step * accumulation).padStart(2, '0')}.num_items_in_batch`).data[0]!;
      const { metrics } = await grpoStep(learner, batches, args.learning_rate, {
        loss: settings,
        entropyCoef: 0,
        scale: {
          maxCompletionLength: args.max_completion_length,
          rolloutTokens: items,
          rolloutBatches: args.steps_per_generation,
        },
      });
      for (const key of ['loss', 'kl', 'entropy']) {
        const allowed = tolerance(1e-4, Math.abs(line[key]! - gauge[step]![key]!));
        expect(Math.abs(metrics[key]! - line[key]!), `${key} of step ${step + 1}`).toBeLessThanOrEqual(allowed);
      }
      for (const part of ['low_mean', 'low_min', 'high_mean', 'high_max', 'region_mean']) {
        const key = `clip_ratio/${part}`;
        expect(metrics[key], `${key} of step ${step + 1}`).toBeCloseTo(line[key]!, 6);
      }
      const norm = line['grad_norm']!;
      const allowed = tolerance(2e-3, Math.abs(gauge[step]!['grad_norm']! / norm - 1));
      expect(Math.abs(metrics['grad_norm']! / norm - 1), `grad_norm of step ${step + 1}`).toBeLessThanOrEqual(allowed);
    }
    const weights = await learner.optimizer.readWeights();
    const atol = tolerance(5e-4, noise);
    for (const [key, recorded] of await adapter(`grpo_run/${name}/final_adapter.safetensors`)) {
      expect(excess(weights.get(key)!.data, recorded.data, { atol }), key).toBeLessThanOrEqual(0);
    }
    await learner.dispose();
  });

  it("gives TRL's reward and length metrics of every rollout", () => {
    const { args, log, generations } = goldenJson(`grpo_run/${name}/run.json`) as Run;
    for (const { completion_ids: ids, rewards, at_global_step: step } of generations) {
      const line = log[step]!;
      const { metrics } = groupAdvantages([{ name: 'reward_fixed', weight: 1, scores: rewards }], {
        groupSize: 4,
        scaleRewards: args.scale_rewards ?? 'group',
        aggregation: 'sum_then_normalize',
      });
      const all: Record<string, number> = {
        ...metrics,
        ...completionMetrics(ids.map((row) => ({ ids: row, terminated: row.at(-1) === 1 }))),
      };
      for (const [key, value] of Object.entries(line).filter(([each]) => /^reward|^completions\/|^frac_/.test(each))) {
        expect(Math.abs(all[key]! - value), `${key} at step ${step + 1}`).toBeLessThanOrEqual(1e-6);
      }
    }
  });
});
