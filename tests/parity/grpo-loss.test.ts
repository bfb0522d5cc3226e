import { afterAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats, readHeader } from '../../src/checkpoints/safetensors.js';
import { wrap, zeros, type Tensor } from '../../src/graph/tensor.js';
import type { LossType } from '../../src/config/grpo-loss.js';
import { grpoLoss, needsSequences } from '../../src/nn/grpo/loss.js';
import { plainLoss, type GrpoLossSettings } from '../../src/nn/grpo/settings.js';
import { quantileRank, tokenWeights } from '../../src/nn/grpo/token-weights.js';
import { newGraph } from '../../src/ops/registry.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { microBatches, type RolloutSample } from '../../src/stages/grpo/batch.js';
import { grpoGraph } from '../../src/stages/grpo/graph.js';
import { lossMetrics } from '../../src/stages/grpo/metrics.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

interface Case {
  case: number;
  loss_type: LossType;
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
  delta?: number;
  top_entropy_quantile?: number;
  entropy_coef?: number;
  off_policy_mask_threshold?: number;
  loss: number;
  loss_f64: number;
  metrics: Record<string, number>;
  metrics_f64: Record<string, number>;
}

const pure = (goldenJson('grpo_loss/pure.json') as { cases: Case[] }).cases;

const settingsOf = (each: Case): GrpoLossSettings => ({
  ...plainLoss,
  lossType: each.loss_type,
  beta: each.beta,
  epsilonLow: each.epsilon,
  epsilonHigh: each.epsilon_high ?? each.epsilon,
  delta: each.delta,
  importanceSamplingLevel: each.importance_sampling_level,
  useBiasCorrectionKl: each.use_bias_correction_kl,
  topEntropyQuantile: each.top_entropy_quantile ?? 1,
  offPolicyMaskThreshold: each.off_policy_mask_threshold,
  entropyBonus: (each.entropy_coef ?? 0) !== 0,
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
    const entropies = tokens('entropies');
    const logProbs = tokens('logprobs');
    const settings = settingsOf(each);
    const { loss, policyLoss } = grpoLoss(
      {
        logProbs,
        entropies,
        oldLogProbs: tokens('old'),
        refLogProbs: each.beta === 0 ? undefined : tokens('ref'),
        samplerLogProbs: settings.offPolicyMaskThreshold === undefined ? undefined : tokens('old_of_mask'),
        advantages: tokens('advantages'),
        weights: tokens('weights'),
        sequences: needsSequences(settings)
          ? { of: graph.input('of', 'int32', ['N']), share: tokens('share'), count: lengths.length }
          : undefined,
        rank:
          settings.topEntropyQuantile < 1
            ? {
                neighbours: graph.input('neighbours', 'int32', [2]),
                share: graph.input('rank_share', 'float64', []),
              }
            : undefined,
        bonusWeight: settings.entropyBonus ? graph.input('bonus', 'float64', []) : undefined,
      },
      settings,
    );
    graph.output('loss', loss);
    graph.output('policy_loss', policyLoss);
    const [gradient, entropyGradient] = backward(loss, [logProbs, entropies]);
    graph.output('gradient', gradient!);
    graph.output('entropy_gradient', entropyGradient!);
    const program = await runtime.compile(graph);
    const weights = tokenWeights(each.loss_type, lengths, {
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
      old_of_mask: old,
      entropies: flat('entropies'),
      ref: flat('ref_per_token_logps'),
      advantages: of.map((row) => advantages[row]!),
      weights: of.map((row) => weights[row]!),
      share: of.map((row) => 1 / lengths[row]!),
    };
    const feeds = Object.fromEntries(
      Object.entries(all).map(([name, values]) => [name, wrap('float64', [values.length], Float64Array.from(values))]),
    );
    const rank = quantileRank(of.length, 1 - settings.topEntropyQuantile);
    const given: Record<string, Tensor> = {
      ...feeds,
      of: wrap('int32', [of.length], Int32Array.from(of)),
      neighbours: wrap('int32', [2], Int32Array.of(rank.below, rank.above)),
      rank_share: wrap('float64', [], Float64Array.of(rank.share)),
      bonus: wrap('float64', [], Float64Array.of((each.entropy_coef ?? 0) / of.length)),
    };
    const result = await program.run(
      Object.fromEntries([...program.inputs.keys()].map((name) => [name, given[name]!])),
    );
    await program.dispose();
    // TRL rounds the temperatures of sapo to float32.
    const tolerance = each.loss_type === 'sapo' ? 1e-7 : 1e-12;
    expect(Math.abs(Number(result['loss']!.data[0]) - each.loss_f64)).toBeLessThanOrEqual(tolerance);

    const recorded = await goldenTensors('grpo_loss/pure_grads.safetensors');
    const name = `case${String(each.case).padStart(3, '0')}`;
    /** A recorded (B, T) gradient at the learned tokens. */
    const expected = (gradients: Tensor): number[] =>
      of.map((row, i) => Number(gradients.data[row * gradients.shape[1]! + i - sum(lengths.slice(0, row))]));
    expect(
      excess(result['gradient']!.data as Float64Array, expected(take(recorded, `${name}.grad_logps`)), { atol: 1e-7 }),
    ).toBeLessThanOrEqual(0);
    const ofEntropies = recorded.get(`${name}.grad_entropies`);
    expect(ofEntropies !== undefined).toBe(settings.entropyBonus);
    expect(
      excess(
        result['entropy_gradient']!.data as Float64Array,
        ofEntropies === undefined ? of.map(() => 0) : expected(ofEntropies),
        { atol: 1e-7 },
      ),
    ).toBeLessThanOrEqual(0);

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
    const metrics: Record<string, number> = {
      ...lossMetrics(samples, all['logprobs']!, flat('entropies'), settings),
      ...(settings.entropyBonus
        ? { policy_loss: Number(result['policy_loss']!.data[0]), entropy_coef: each.entropy_coef! }
        : {}),
    };
    expect(Object.keys(metrics).sort()).toEqual(Object.keys(each.metrics_f64).sort());
    for (const [name, value] of Object.entries(each.metrics_f64)) {
      expect(Math.abs(metrics[name]! - value), name).toBeLessThanOrEqual(1e-6);
    }
  });
});

describe('GRPO loss through the model', () => {
  const { cases } = goldenJson('grpo_loss/model.json') as {
    cases: (Case & { temperature: number; grad_norm: number })[];
  };

  it.each(cases.map((each) => [`${each.case} ${each.loss_type}`, each] as const))('case %s', async (_, each) => {
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
    const [whole] = microBatches(samples, {
      loss: settings,
      scale: {
        maxCompletionLength: each.max_completion_length,
        accumulation: 1,
        rolloutTokens: each.num_items_in_batch,
        rolloutBatches: 1,
      },
      entropyCoef: 0,
    });
    const { tensors } = await readHeader(golden('lora/adapter/adapter_model.safetensors'));
    const adapter = Object.fromEntries(
      await Promise.all([...tensors.values()].map(async (info) => [info.name, await readFloats(info)] as const)),
    );
    const given: Record<string, Tensor> = { ...whole!.feeds, ...adapter };
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

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

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
