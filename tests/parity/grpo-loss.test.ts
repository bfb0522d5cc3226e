import { afterAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats, readHeader } from '../../src/checkpoints/safetensors.js';
import { wrap, zeros, type Tensor } from '../../src/graph/tensor.js';
import { grpoLoss, tokenWeights, type GrpoLossSettings, type GrpoLossType } from '../../src/nn/grpo-loss.js';
import { newGraph } from '../../src/ops/registry.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { grpoFeeds, type RolloutSample } from '../../src/stages/grpo/batch.js';
import { grpoGraph } from '../../src/stages/grpo/graph.js';
import { lossMetrics } from '../../src/stages/grpo/metrics.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

interface Case {
  case: number;
  loss_type: string;
  importance_sampling_level: 'token' | 'sequence';
  beta: number;
  use_bias_correction_kl: boolean;
  epsilon: number;
  epsilon_high: number | null;
  num_items_in_batch: number;
  max_completion_length: number;
  gradient_accumulation_steps?: number;
  steps_per_generation?: number;
  old?: string;
  mask?: string;
  loss: number;
  loss_f64: number;
  metrics: Record<string, number>;
  metrics_f64: Record<string, number>;
}

const types: readonly string[] = ['grpo', 'bnpo', 'dr_grpo', 'dapo'];
/** Options of later loss variants; their cases wait for them (see tests/parity/README.md). */
const later = ['delta', 'top_entropy_quantile', 'entropy_coef', 'off_policy_mask_threshold'];
const pure = (goldenJson('grpo_loss/pure.json') as { cases: Case[] }).cases.filter(
  (each) => types.includes(each.loss_type) && !later.some((option) => option in each),
);

const settingsOf = (each: Case): GrpoLossSettings => ({
  beta: each.beta,
  epsilonLow: each.epsilon,
  epsilonHigh: each.epsilon_high ?? each.epsilon,
  importanceSamplingLevel: each.importance_sampling_level,
  useBiasCorrectionKl: each.use_bias_correction_kl,
});

type Recorded = ReadonlyMap<string, Tensor<'float32' | 'int32'>>;

/** The learned tokens of (B, T) tensors one after the other, as the graph takes them. */
function flatten(
  inputs: Recorded,
  maskName: string,
): { flat: (name: string) => number[]; lengths: number[]; of: number[] } {
  const mask = take(inputs, maskName);
  const [rows, length] = mask.shape as [number, number];
  const kept = [...mask.data.keys()].filter((at) => mask.data[at] === 1);
  return {
    flat: (name) => kept.map((at) => take(inputs, name).data[at]!),
    lengths: Array.from({ length: rows }, (_, row) => kept.filter((at) => Math.floor(at / length) === row).length),
    of: kept.map((at) => Math.floor(at / length)),
  };
}

describe('GRPO loss on given log-probabilities', () => {
  it('is checked on every recorded case of the four types', () => {
    expect(pure.length).toBe(4 * 2 * 3 * 2 + 4 * 3);
  });

  it.each(
    pure.map(
      (each) => [`${each.case} ${each.loss_type} ${each.importance_sampling_level} β=${each.beta}`, each] as const,
    ),
  )('case %s', async (_, each) => {
    const inputs = await goldenTensors('grpo_loss/pure_inputs.safetensors');
    const { flat, lengths, of } = flatten(
      inputs,
      each.mask === undefined ? 'completion_mask' : 'completion_mask_one_row_empty',
    );
    const graph = newGraph();
    const tokens = (name: string) => graph.input(name, 'float64', ['N']);
    const logProbs = tokens('logprobs');
    const settings = settingsOf(each);
    const loss = grpoLoss(
      {
        logProbs,
        oldLogProbs: tokens('old'),
        refLogProbs: each.beta === 0 ? undefined : tokens('ref'),
        advantages: tokens('advantages'),
        weights: tokens('weights'),
        ...(each.importance_sampling_level === 'sequence'
          ? { sequences: { of: graph.input('of', 'int32', ['N']), share: tokens('share'), count: lengths.length } }
          : {}),
      },
      settings,
    );
    graph.output('loss', loss);
    graph.output('gradient', backward(loss, [logProbs])[0]!);
    const program = await runtime.compile(graph);
    const weights = tokenWeights(each.loss_type as GrpoLossType, lengths, {
      maxCompletionLength: each.max_completion_length,
      accumulation: each.gradient_accumulation_steps ?? 1,
      rolloutTokens: each.num_items_in_batch,
      rolloutBatches: each.steps_per_generation ?? 1,
    });
    const advantages = take(inputs, 'advantages').data;
    const old = each.old === 'absent' ? flat('per_token_logps') : flat('old_per_token_logps');
    const all: Record<string, number[]> = {
      logprobs: flat('per_token_logps'),
      old,
      ref: flat('ref_per_token_logps'),
      advantages: of.map((row) => advantages[row]!),
      weights: of.map((row) => weights[row]!),
      share: of.map((row) => 1 / lengths[row]!),
    };
    const feeds = Object.fromEntries(
      Object.entries(all).map(([name, values]) => [name, wrap('float64', [values.length], Float64Array.from(values))]),
    );
    const given = { ...feeds, of: wrap('int32', [of.length], Int32Array.from(of)) } as Record<string, Tensor>;
    const result = await program.run(
      Object.fromEntries([...program.inputs.keys()].map((name) => [name, given[name]!])),
    );
    await program.dispose();
    expect(Math.abs(Number(result['loss']!.data[0]) - each.loss_f64)).toBeLessThanOrEqual(1e-12);

    const recorded = take(
      await goldenTensors('grpo_loss/pure_grads.safetensors'),
      `case${String(each.case).padStart(3, '0')}.grad_logps`,
    );
    const length = recorded.shape[1]!;
    const expected = of.map(
      (row, i) => recorded.data[row * length + i - lengths.slice(0, row).reduce((a, b) => a + b, 0)]!,
    );
    expect(excess(result['gradient']!.data as Float64Array, expected, { atol: 1e-7 })).toBeLessThanOrEqual(0);
    if (each.gradient_accumulation_steps !== undefined || each.old === 'absent') return;

    let at = 0;
    const samples = lengths.map((count, row): RolloutSample => {
      const range = [at, (at += count)] as const;
      return {
        promptIds: [],
        completionIds: Array.from({ length: count }, () => 5),
        advantage: advantages[row]!,
        oldLogProbs: old.slice(...range),
        ...(each.beta === 0 ? {} : { refLogProbs: all['ref']!.slice(...range) }),
        learned: true,
      };
    });
    const metrics = lossMetrics(samples, all['logprobs']!, flat('entropies'), settings);
    for (const [name, value] of Object.entries(each.metrics_f64)) {
      expect(Math.abs(metrics[name]! - value), name).toBeLessThanOrEqual(1e-6);
    }
  });
});

describe('GRPO loss through the model', () => {
  const { cases } = goldenJson('grpo_loss/model.json') as {
    cases: (Case & { temperature: number; grad_norm: number })[];
  };

  it.each(
    cases
      .filter(({ loss_type: type }) => types.includes(type))
      .map((each) => [`${each.case} ${each.loss_type}`, each] as const),
  )('case %s', async (_, each) => {
    const folder = await openModelFolder(golden('qwen3/model'));
    if (folder.config.kind !== 'causal') throw new Error('the recording is no Qwen3');
    const lora = {
      r: 4,
      alpha: 8,
      dropout: 0,
      targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    };
    const settings = settingsOf(each);
    const { context, loss } = grpoGraph(folder.config, lora, { ...settings, temperature: each.temperature });
    const names = [...context.loraWeights.keys()];
    for (const [i, gradient] of backward(loss, [...context.loraWeights.values()]).entries())
      context.graph.output(`gradient/${names[i]!}`, gradient);
    const program = await runtime.compile(context.graph, folder.weights);

    const inputs = await goldenTensors('grpo_loss/model_inputs.safetensors');
    const samples = samplesOf(inputs, each.beta !== 0);
    const feeds = grpoFeeds(samples, 0, {
      lossType: each.loss_type as GrpoLossType,
      maxCompletionLength: each.max_completion_length,
      accumulation: 1,
      rolloutTokens: each.num_items_in_batch,
      rolloutBatches: 1,
    });
    const { tensors } = await readHeader(golden('lora/adapter/adapter_model.safetensors'));
    const adapter = Object.fromEntries(
      await Promise.all([...tensors.values()].map(async (info) => [info.name, await readFloats(info)] as const)),
    );
    const given: Record<string, Tensor> = { ...feeds, ...adapter };
    const result = await program.run(
      Object.fromEntries([...program.inputs.keys()].map((name) => [name, given[name] ?? zeros('float32', [])])),
    );
    await program.dispose();

    expect(Math.abs(Number(result['loss']!.data[0]) - each.loss)).toBeLessThanOrEqual(1e-4);
    const { flat } = flatten(inputs, 'completion_mask');
    expect(
      excess(result['logprobs']!.data as Float32Array, flat('per_token_logps'), { atol: 1e-4 }),
    ).toBeLessThanOrEqual(0);
    expect(excess(result['entropies']!.data as Float32Array, flat('entropies'), { atol: 1e-4 })).toBeLessThanOrEqual(0);
    const metrics = lossMetrics(
      samples,
      result['logprobs']!.data as Float32Array,
      result['entropies']!.data as Float32Array,
      settings,
    );
    for (const [name, value] of Object.entries(each.metrics))
      expect(Math.abs(metrics[name]! - value), name).toBeLessThanOrEqual(1e-4);
    for (const [name, gradient] of await goldenTensors(`grpo_loss/model_grads_${each.case}.safetensors`)) {
      const ours = result[`gradient/${name}`]!.data as Float32Array;
      expect(excess(ours, gradient.data, { atol: 1e-5, rtol: 2e-3 }), name).toBeLessThanOrEqual(0);
    }
  });
});

/** Rows of recorded (B, P) prompts, padded on the left, and (B, C) completions, padded on the right. */
function samplesOf(inputs: Recorded, withReference: boolean): RolloutSample[] {
  const [batch, width] = take(inputs, 'completion_ids').shape as [number, number];
  const prompt = take(inputs, 'prompt_ids').shape[1]!;
  const row = (name: string, maskName: string, i: number, size: number): number[] => {
    const mask = take(inputs, maskName).data.subarray(i * size, (i + 1) * size);
    return [...take(inputs, name).data.subarray(i * size, (i + 1) * size)].filter((_, t) => mask[t] === 1);
  };
  return Array.from({ length: batch }, (_, i) => ({
    promptIds: row('prompt_ids', 'prompt_mask', i, prompt),
    completionIds: row('completion_ids', 'completion_mask', i, width),
    advantage: take(inputs, 'advantages').data[i]!,
    oldLogProbs: row('old_per_token_logps', 'completion_mask', i, width),
    ...(withReference ? { refLogProbs: row('ref_per_token_logps', 'completion_mask', i, width) } : {}),
    learned: true,
  }));
}
