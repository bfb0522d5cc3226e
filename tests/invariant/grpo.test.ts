import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { initialAdapter, writeAdapter } from '../../src/checkpoints/adapter.js';
import { loraOf, type AdapterConfig } from '../../src/checkpoints/adapter-config.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { LOSS_TYPES } from '../../src/config/grpo-loss.js';
import { loadConfig } from '../../src/config/load.js';
import type { GrpoConfig } from '../../src/config/stages.js';
import { UserError } from '../../src/errors.js';
import { openPolicy } from '../../src/generation/policy.js';
import { Scorer } from '../../src/generation/scorer.js';
import { plainLoss } from '../../src/nn/grpo/settings.js';
import { stream } from '../../src/random.js';
import { Interrupted, type StageContext, type StageEvent } from '../../src/runs/events.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { grpo } from '../../src/stages/grpo.js';
import type { RolloutSample } from '../../src/stages/grpo/batch.js';
import { grpoGraph } from '../../src/stages/grpo/graph.js';
import type { RolloutRecord } from '../../src/stages/grpo/rollout.js';
import { grpoStep } from '../../src/stages/grpo/step.js';
import { Learner } from '../../src/training/learner.js';
import { excess } from '../support/golden.js';
import { miniRows, writeMiniData, writeMiniEncoder, writeMiniPolicy } from '../support/mini-humor.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-grpo-'));
const folder = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

const rows = miniRows(60);
const adapterConfig: AdapterConfig = {
  r: 4,
  loraAlpha: 8,
  loraDropout: 0,
  targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
  useRslora: false,
  taskType: 'CAUSAL_LM',
  baseModelNameOrPath: null,
};

beforeAll(async () => {
  await writeMiniData(folder('data'), rows);
  await writeMiniPolicy(folder('policy'), rows);
  await writeMiniEncoder(folder('judge'), rows, 'classifier');
  // An adapter that changes what the policy computes.
  const random = stream(1, 'adapter');
  const tensors = initialAdapter((await openModelFolder(folder('policy'))).weights, adapterConfig, () =>
    random.uniform(),
  );
  for (const [name, { data }] of tensors) {
    if (name.includes('lora_B')) for (let i = 0; i < data.length; i++) data[i] = 0.1 * random.normal();
  }
  await writeAdapter(folder('sft'), { config: adapterConfig, tensors });
});

const configOf = (flags: Record<string, unknown>): Promise<GrpoConfig> =>
  loadConfig({
    stage: 'grpo',
    flags: {
      model: folder('policy'),
      rm: folder('judge'),
      'data.dir': folder('data'),
      'data.validationFraction': 0.2,
      'data.templates.headline': '标题：{headline}\n',
      'data.templates.words': '词语：{word1}、{word2}\n',
      'lora.r': 4,
      'lora.dropout': 0.5,
      'grpo.numGenerations': 4,
      'grpo.completionsPerRollout': 8,
      'grpo.batchSize': 4,
      'grpo.maxSteps': 8,
      'grpo.maxCompletionLength': 10,
      'grpo.learningRate': 0.01,
      'grpo.warmupSteps': 2,
      'grpo.loggingSteps': 1,
      'grpo.evalSteps': 5,
      'grpo.saveSteps': 4,
      'grpo.evalPrompts': 2,
      threads: 1,
      ...flags,
    },
  });

const silent: StageContext = { onEvent: () => undefined };

async function run(name: string, flags: Record<string, unknown> = {}): Promise<string> {
  return grpo(await configOf({ ...flags, out: folder(name) }), silent);
}

const trained = (out: string): Record<string, number>[] =>
  readMetrics(join(out, 'metrics.jsonl')).flatMap(({ values }) => ('loss' in values ? [values] : []));

async function rollouts(out: string): Promise<(RolloutRecord & { step: number })[]> {
  const lines = (await readFile(join(out, 'rollouts.jsonl'), 'utf8')).trim().split('\n');
  return lines.map((line) => JSON.parse(line) as RolloutRecord & { step: number });
}

/** Stops the stage some milliseconds after it began its first step. */
function stopAfter(delay: number): StageContext {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    onEvent: ({ type }) => {
      if (type === 'start')
        setTimeout(() => {
          controller.abort();
        }, delay);
    },
  };
}

describe('a run that was stopped while it wrote a rollout, and crashed while it learned from it,', () => {
  const files = (out: string): Promise<Buffer[]> =>
    Promise.all(
      ['adapter/adapter_model.safetensors', 'metrics.jsonl', 'rollouts.jsonl'].map((name) => readFile(join(out, name))),
    );

  it.each([
    { name: 'each rollout used twice', flags: { 'grpo.numIterations': 2 } },
    {
      name: 'steps without anything to learn',
      flags: { 'grpo.maskTruncatedCompletions': true, 'grpo.maxCompletionLength': 2 },
    },
  ])('ends as if nothing had happened, bit for bit: $name', async ({ name, flags }) => {
    const whole = await run(`${name} whole`, flags);

    const out = folder(`${name} broken`);
    const resumed = async (context: StageContext, resume = true): Promise<string> =>
      grpo(await configOf({ ...flags, out, resume }), context);
    const controller = new AbortController();
    const stopping: StageContext = {
      signal: controller.signal,
      // It is about to write the rollout of step 5, and gives it up.
      onEvent: (event) => {
        if (event.type === 'checkpoint' && event.step === 4) controller.abort();
      },
    };
    await expect(resumed(stopping, false)).rejects.toMatchObject({ step: 4, name: 'Interrupted' });
    const crashing: StageContext = {
      onEvent: (event) => {
        if (event.type === 'progress' && event.done === 7) throw new Error('the lights went out');
      },
    };
    await expect(resumed(crashing)).rejects.toThrow('the lights went out');
    for (const delay of [1, 40, 80, 120, 160, 200]) {
      // Somewhere in a rollout, a step or an evaluation.
      const again = await resumed(stopAfter(delay)).catch((error: unknown) => error);
      if (again === out) break;
      expect(again).toBeInstanceOf(Interrupted);
    }
    const events: StageEvent[] = [];
    await resumed({ onEvent: (event) => events.push(event) });

    expect(events.filter(({ type }) => type === 'warning')).toEqual([]);
    expect(await files(out)).toEqual(await files(whole));
    const idle = trained(whole).filter((values) => values['grad_norm'] === 0).length;
    expect(idle > 0).toBe('grpo.maskTruncatedCompletions' in flags);
    expect(idle).toBeLessThan(8);
  });
});

describe('a sampler on a rounded base', () => {
  const RATIO = 'sampling/importance_sampling_ratio/mean';
  const DIFFERENCE = 'sampling/sampling_logp_difference/max';
  const once = { 'grpo.maxSteps': 1, 'grpo.evalPrompts': 0, 'grpo.rolloutCorrection': 'token_truncate' };
  beforeAll(() => {
    vi.stubEnv('DUANZI_CACHE', folder('cache'));
  });
  afterAll(() => {
    vi.unstubAllEnvs();
  });

  it('that the policy does not have is measured, and the loss corrects for it', async () => {
    const out = await run('int4-sampler', { ...once, 'grpo.samplerQuantization': 'int4' });
    const [values] = trained(out);
    expect(values![DIFFERENCE]).toBeGreaterThan(0.01);
    expect(values![RATIO]).not.toBe(1);
    expect(values![RATIO]).toBeCloseTo(1, 0);
    expect(Math.abs(values!['kl']!)).toBeLessThan(1e-6);
  });

  it('of a base in NF4 has its values in bytes: nearly the policy, which is measured and corrected for all the same', async () => {
    const out = await run('nf4-run', { ...once, quantization: 'nf4', 'grpo.samplerTolerance': 0 });
    const [values] = trained(out);
    expect(values![DIFFERENCE]).toBeGreaterThan(0);
    expect(values![DIFFERENCE]).toBeLessThan(0.1);
    expect(values![RATIO]).not.toBe(1);
    expect(values![RATIO]).toBeCloseTo(1, 1);
  });

  it('that learns too is the policy', async () => {
    const out = await run('int8-run', { ...once, quantization: 'int8' });
    const [values] = trained(out);
    expect(values![DIFFERENCE]).toBeLessThan(0.01);
    expect(values).not.toHaveProperty([RATIO]);
    expect(Math.abs(values!['kl']!)).toBeLessThan(1e-6);
  });
});

describe('a run', () => {
  let out: string;
  beforeAll(async () => {
    const flags = { 'grpo.batchSize': 8, 'grpo.numIterations': 2, 'grpo.maxSteps': 4, 'grpo.warmupSteps': 0 };
    out = await run('plain', flags);
  });

  it('starts at the reference: no KL, every ratio 1; then it moves', () => {
    const [first, second] = trained(out);
    expect(Math.abs(first!['kl']!)).toBeLessThan(1e-6);
    for (const part of ['low_mean', 'high_mean', 'region_mean']) expect(first![`clip_ratio/${part}`]).toBe(0);
    expect(second!['kl']).toBeGreaterThan(1e-5);
  });

  it('has at first the loss of advantages alone', async () => {
    const written = (await rollouts(out)).filter(({ step }) => step === 1);
    expect(written).toHaveLength(8);
    const tokens = written.reduce((total, each) => total + each.tokens, 0);
    const loss = -written.reduce((total, each) => total + (each.advantage * each.tokens) / tokens, 0);
    expect(Math.abs(loss)).toBeGreaterThan(1e-3);
    expect(trained(out)[0]!['loss']).toBeCloseTo(loss, 5);
  });

  it('writes a group for each prompt, with advantages that add up to zero, once for two passes', async () => {
    const written = await rollouts(out);
    expect([...new Set(written.map(({ step }) => step))]).toEqual([1, 3]);
    const groups = new Map<string, RolloutRecord[]>();
    for (const record of written) {
      const key = `${record.step} ${record.prompt}`;
      groups.set(key, [...(groups.get(key) ?? []), record]);
    }
    for (const group of groups.values()) {
      expect(group).toHaveLength(4);
      expect(group.reduce((total, { advantage }) => total + advantage, 0)).toBeCloseTo(0, 4);
      const byReward = [...group].sort((a, b) => a.reward! - b.reward!).map(({ advantage }) => advantage);
      expect(byReward).toEqual([...byReward].sort((a, b) => a - b));
    }
    expect(new Set(written.map(({ finishReason }) => finishReason))).toEqual(new Set(['stop', 'length']));
  });

  it("logs under TRL's names, rollout figures where one was written", () => {
    const lines = trained(out).map((values) => Object.keys(values).sort());
    const step = [
      'clip_ratio/high_max',
      'clip_ratio/high_mean',
      'clip_ratio/low_mean',
      'clip_ratio/low_min',
      'clip_ratio/region_mean',
      'entropy',
      'grad_norm',
      'kl',
      'learning_rate',
      'loss',
      'num_tokens',
    ];
    const rollout = [
      'completions/clipped_ratio',
      'completions/max_length',
      'completions/max_terminated_length',
      'completions/mean_length',
      'completions/mean_terminated_length',
      'completions/min_length',
      'completions/min_terminated_length',
      'frac_reward_zero_std',
      'gaming/copied',
      'gaming/distinct_2',
      'gaming/length_correlation',
      'gaming/length_ratio',
      'gaming/prompt_share',
      'gaming/self_similarity',
      'reward',
      'reward_std',
      'rewards/reward_model/mean',
      'rewards/reward_model/std',
      'sampling/sampling_logp_difference/max',
      'sampling/sampling_logp_difference/mean',
    ];
    expect(lines[0]).toEqual([...step, ...rollout].sort());
    expect(lines[1]).toEqual(step);
    // The sampler is the policy: with a cache or without one, its log-probabilities are the same.
    for (const values of trained(out)) expect(values['sampling/sampling_logp_difference/max'] ?? 0).toBeLessThan(1e-4);
    const evaluated = readMetrics(join(out, 'metrics.jsonl')).filter(({ values }) => 'eval_reward' in values);
    expect(evaluated.map(({ step }) => step)).toEqual([0, 4]);
  });

  it('leaves an adapter for the model and no merge', async () => {
    const policy = await openPolicy(folder('policy'), join(out, 'adapter'));
    expect(policy.model.lora).toMatchObject({ r: 4, alpha: 32 });
    await expect(openModelFolder(join(out, 'policy'))).rejects.toThrow(UserError);
  });
});

it('merges a given adapter first, and the merged model computes what both did', async () => {
  const out = await run('merged', { adapter: folder('sft'), 'grpo.maxSteps': 1 });
  const report = JSON.parse(await readFile(join(out, 'policy/merge.json'), 'utf8')) as Record<string, unknown>;
  expect(report).toMatchObject({ model: folder('policy'), adapter: folder('sft') });
  expect(report['largestLogitDifference']).toBeLessThan(1e-4);

  const runtime = new Runtime({ threads: 1 });
  const logProbs = async (...parts: [string, string?]): Promise<Float32Array> => {
    const { model, adapter, tokenizer } = await openPolicy(...parts);
    const inputIds = tokenizer!.encode(`标题：${rows[0]!.headline}\n${rows[0]!.joke}`);
    const scorer = await Scorer.create(runtime, model);
    const [scores] = await scorer.logProbabilities([{ inputIds, completionMask: inputIds.map(() => 1) }], {
      temperature: 1,
      batchSize: 1,
      ...(adapter && { adapter }),
    });
    return scores!;
  };
  const both = await logProbs(folder('policy'), folder('sft'));
  expect(excess(await logProbs(join(out, 'policy')), both, { atol: 1e-4 })).toBeLessThanOrEqual(0);
  expect(excess(await logProbs(folder('policy')), both, { atol: 0.1 })).toBeGreaterThan(0);
  await runtime.close();
});

it('without a KL computes and logs none', async () => {
  const out = await run('beta 0', { 'grpo.beta': 0, 'grpo.maxSteps': 3 });
  for (const values of trained(out)) expect(values).not.toHaveProperty('kl');
  expect(trained(out)).toHaveLength(3);
});

it('learns nothing where every completion is cut and masked, and says so in its numbers', async () => {
  const flags = { 'grpo.maskTruncatedCompletions': true, 'grpo.maxCompletionLength': 1, 'grpo.batchSize': 8 };
  const out = await run('all cut', { ...flags, 'grpo.topK': 1, 'grpo.maxSteps': 2 });
  for (const values of trained(out)) {
    expect(values).toMatchObject({ loss: 0, grad_norm: 0, 'completions/clipped_ratio': 1 });
  }
  const { adapter } = await openPolicy(folder('policy'), join(out, 'adapter'));
  for (const [name, { data }] of Object.entries(adapter!)) {
    if (name.includes('lora_B')) expect(data.every((value) => value === 0)).toBe(true);
  }
});

describe('grpoStep', () => {
  const runtime = new Runtime({ threads: 1 });
  afterAll(() => runtime.close());
  it.each(LOSS_TYPES)('makes rewarded completions likelier and the others less likely: %s', async (lossType) => {
    const policy = await openPolicy(folder('policy'));
    const settings = { ...plainLoss, lossType, beta: 0.05, epsilonHigh: lossType === 'cispo' ? 5 : 0.2 };
    const lora = loraOf({ config: adapterConfig });
    const random = stream(3, 'adapter');
    const { context, loss } = grpoGraph(policy.config, lora, { ...settings, temperature: 1 });
    const learner = await Learner.create(runtime, {
      graph: context.graph,
      loss,
      trainable: context.loraWeights,
      initial: initialAdapter(policy.folder.weights, adapterConfig, () => random.uniform()),
      frozen: policy.folder.weights,
      adamw: { weightDecay: 0, maxGradNorm: 1 },
    });
    const scorer = await Scorer.create(runtime, { ...policy.model, lora });

    const promptIds = policy.tokenizer!.encode('标题：');
    const rewards = [1, 0, 1, 0];
    const completions = rewards.map((_, i) => policy.tokenizer!.encode(rows[i]!.joke).slice(0, 6 + i));
    const sequences = completions.map((completion) => ({
      inputIds: [...promptIds, ...completion],
      completionMask: [...promptIds.map(() => 0 as const), ...completion.map(() => 1 as const)],
    }));
    const measure = (): Promise<Float32Array[]> =>
      scorer.logProbabilities(sequences, { temperature: 1, batchSize: 4, adapter: learner.weights });
    const before = await measure();
    const samples = completions.map((completionIds, i): RolloutSample => ({
      promptIds,
      completionIds,
      advantage: rewards[i] === 1 ? 1 : -1,
      oldLogProbs: [...before[i]!],
      refLogProbs: [...before[i]!],
      learned: true,
    }));
    const scale = {
      maxCompletionLength: 16,
      rolloutTokens: completions.reduce((total, { length }) => total + length, 0),
      rolloutBatches: 1,
    };
    for (let step = 0; step < 5; step++) {
      await grpoStep(learner, [samples], 1e-3, { loss: settings, scale, entropyCoef: 0 });
    }
    const after = await measure();
    const sum = (values: Float32Array): number => values.reduce((a, b) => a + b, 0);
    for (const [i, reward] of rewards.entries()) {
      expect(Math.sign(sum(after[i]!) - sum(before[i]!)), `completion ${i}`).toBe(reward === 1 ? 1 : -1);
    }
  });
});

describe('refuses, before anything is written,', () => {
  it.each([
    [
      'fewer prompts than a rollout needs',
      { 'grpo.completionsPerRollout': 800 },
      'grpo.too-few-prompts',
      /fewer than the 200/,
    ],
    [
      'a prompt over the limit',
      { 'grpo.maxPromptLength': 5 },
      'grpo.prompt-too-long',
      /has \d+ tokens; the limit is 5/,
    ],
    [
      'a prompt that leaves no room in the model',
      { 'grpo.maxCompletionLength': 255 },
      'input.too-long',
      /255 more are to be written; the model takes 256/,
    ],
    [
      'a reward model that is none',
      { rm: folder('policy') },
      'model.not-classifier',
      /Qwen3ForCausalLM, not a reward model/,
    ],
    ['a policy that cannot write', { model: folder('judge') }, 'model.not-causal', /cannot write/],
    [
      'an adapter for another model',
      { model: folder('judge'), adapter: folder('sft') },
      'model.not-causal',
      /cannot write/,
    ],
  ])('%s', async (_, flags, code, message) => {
    const out = folder('refused');
    const thrown: unknown = await grpo(await configOf({ ...flags, out }), silent).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(UserError);
    expect(thrown).toMatchObject({ code, exitCode: 2, message: expect.stringMatching(message) as unknown });
    await expect(readFile(join(out, 'manifest.json'))).rejects.toThrow('ENOENT');
  });

  it('naming the row of the prompt', async () => {
    const config = await configOf({ out: folder('refused'), 'grpo.maxPromptLength': 5 });
    await expect(grpo(config, silent)).rejects.toMatchObject({
      where: expect.stringMatching(/sft_train\.csv:\d+$/) as unknown,
    });
  });
});

it('stopped by a signal that was there before it began leaves no folder', async () => {
  const config = await configOf({ out: folder('stopped') });
  await expect(grpo(config, { ...silent, signal: AbortSignal.abort() })).rejects.toThrow('aborted');
  expect(existsSync(folder('stopped'))).toBe(false);
});
