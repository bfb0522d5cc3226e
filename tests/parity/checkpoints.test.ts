import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initialAdapter, openAdapter, writeAdapter } from '../../src/checkpoints/adapter.js';
import { loadMergedTensors, mergeAdapter } from '../../src/checkpoints/merge.js';
import { loadTensors, openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats, readHeader } from '../../src/checkpoints/safetensors.js';
import { sourceOfFile, writeSafetensors } from '../../src/checkpoints/safetensors-writer.js';
import { parseModelConfig, toHuggingFaceConfig } from '../../src/models/config/model-config.js';

const golden = join(dirname(fileURLToPath(import.meta.url)), '../fixtures/golden');
const readJson = async (...path: string[]): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(join(golden, ...path), 'utf8')) as Record<string, unknown>;

let out: string;
beforeAll(async () => {
  out = await mkdtemp(join(tmpdir(), 'checkpoints-'));
});
afterAll(() => rm(out, { recursive: true }));

const maxAbsDifference = (a: Float32Array, b: Float32Array): number => {
  expect(a.length).toBe(b.length);
  return a.reduce((max, value, i) => Math.max(max, Math.abs(value - b[i]!)), 0);
};

describe('configs as transformers wrote them', () => {
  it.each(['qwen3', 'qwen3_untied', 'qwen3_sharded_bf16'])('%s', async (name) => {
    const config = parseModelConfig(await readJson(name, 'model/config.json'), name);
    expect(config).toEqual({
      kind: 'causal',
      modelType: 'qwen3',
      architecture: 'Qwen3ForCausalLM',
      vocabSize: 320,
      hiddenSize: 64,
      intermediateSize: 160,
      numHiddenLayers: 3,
      numAttentionHeads: 4,
      numKeyValueHeads: 2,
      headDim: 24,
      hiddenAct: 'silu',
      maxPositionEmbeddings: 256,
      initializerRange: 0.02,
      rmsNormEps: 1e-6,
      rope: { type: 'default', theta: 1e6 },
      tieWordEmbeddings: name !== 'qwen3_untied',
      qkNorm: true,
      qkvBias: false,
      outputBias: false,
      mlpBias: false,
      labels: [],
      attentionDropout: 0,
      bosTokenId: null,
      eosTokenIds: [1],
      padTokenId: 0,
      dtype: name === 'qwen3_sharded_bf16' ? 'bfloat16' : 'float32',
    });
  });

  it.each(['deberta', 'deberta/conv'])('%s', async (name) => {
    const config = parseModelConfig(await readJson(name, 'model/config.json'), name);
    expect(config).toMatchObject({
      architecture: 'DebertaV2ForSequenceClassification',
      hiddenSize: 48,
      relativeAttention: true,
      maxRelativePositions: 64,
      positionBuckets: 16,
      normRelEbd: 'layer_norm',
      shareAttKey: true,
      posAttType: ['p2c', 'c2p'],
      positionBiasedInput: false,
      typeVocabSize: 0,
      convKernelSize: name === 'deberta' ? 0 : 3,
      convAct: name === 'deberta' ? 'tanh' : 'gelu',
      layerNormEps: 1e-7,
      legacy: true,
      labels: ['LABEL_0', 'LABEL_1'],
    });
  });

  it.each(['qwen3', 'qwen3_sharded_bf16', 'deberta', 'deberta/conv'])(
    '%s is written with the same values',
    async (name) => {
      const recorded = await readJson(name, 'model/config.json');
      const written = toHuggingFaceConfig(parseModelConfig(recorded, name));
      const same = Object.keys(recorded).filter((key) => key in written);
      // These two say the same in other words: no layer has a window; distances are clipped at the longest text.
      const restated = ['max_window_layers', 'max_relative_positions'];
      for (const key of same.filter((each) => !restated.includes(each)))
        expect([key, written[key]]).toEqual([key, recorded[key]]);
      expect(same.length).toBeGreaterThan(22);
    },
  );
});

describe('safetensors files of the reference library', () => {
  it.each([
    'qwen3/model/model',
    'qwen3_sharded_bf16/model/model-00001-of-00002',
    'lora/adapter/adapter_model',
    'lora/batch',
  ])('%s is written again byte for byte', async (name) => {
    const file = join(golden, `${name}.safetensors`);
    const { tensors, metadata } = await readHeader(file);
    const copy = join(out, 'copy.safetensors');
    await writeSafetensors(copy, [...tensors.values()].reverse().map(sourceOfFile), { metadata });
    expect((await readFile(copy)).equals(await readFile(file))).toBe(true);
  });

  it('bfloat16 shards widen to the upper halves of float32, every tensor of the index', async () => {
    const model = await openModelFolder(join(golden, 'qwen3_sharded_bf16/model'));
    const whole = await openModelFolder(join(golden, 'qwen3/model'));
    expect([...model.weights.keys()].sort()).toEqual([...whole.weights.keys()].sort());
    expect(model.eosTokenIds).toEqual([1]);
    const tensors = await loadTensors(model.weights, model.weights.keys());
    const values = [...tensors.values()].flatMap(({ data }) => Array.from(data));
    expect(values.length).toBe(168_528);
    expect(values.every((value) => Number.isFinite(value))).toBe(true);
    for (const { data } of tensors.values()) {
      expect(new Uint32Array(data.buffer).every((bits) => (bits & 0xffff) === 0)).toBe(true);
    }
  });
});

describe('PEFT adapters', () => {
  const adapterDir = join(golden, 'lora/adapter');
  const modelDir = join(golden, 'qwen3/model');

  it('are written again byte for byte, and their config value for value', async () => {
    const adapter = await openAdapter(adapterDir);
    const copy = join(out, 'adapter');
    await writeAdapter(copy, {
      config: adapter.config,
      tensors: await loadTensors(adapter.weights, adapter.weights.keys()),
    });
    const [written, recorded] = await Promise.all(
      [copy, adapterDir].map((dir) => readFile(join(dir, 'adapter_model.safetensors'))),
    );
    expect(written!.equals(recorded!)).toBe(true);
    const config = JSON.parse(await readFile(join(copy, 'adapter_config.json'), 'utf8')) as object;
    const peft = await readJson('lora/adapter/adapter_config.json');
    expect(config).toEqual(peft);
    expect(Object.keys(config)).toEqual(Object.keys(peft));
  });

  it('start as PEFT starts them: the same names and shapes, A uniform in ±1/√in, B zero', async () => {
    const adapter = await openAdapter(adapterDir);
    const { weights } = await openModelFolder(modelDir);
    let state = 1;
    const random = (): number => (state = (state * 16807) % 2147483647) / 2147483647;
    const started = initialAdapter(weights, adapter.config, random);
    expect(new Map([...started].map(([name, { shape }]) => [name, shape]))).toEqual(
      new Map([...adapter.weights].map(([name, { shape }]) => [name, shape])),
    );
    const scaled = [...started]
      .filter(([name]) => name.includes('lora_A'))
      .flatMap(([, { shape, data }]) => Array.from(data, (value) => value * Math.sqrt(shape[1]!)));
    const { peft_default_init: recorded } = (await readJson('lora/scalars.json')) as {
      peft_default_init: { lora_A_max_abs_over_bound: number; lora_A_std_times_sqrt_fan_in: number };
    };
    const std = Math.sqrt(scaled.reduce((sum, value) => sum + value * value, 0) / scaled.length);
    expect(Math.abs(std - recorded.lora_A_std_times_sqrt_fan_in)).toBeLessThan(0.02);
    expect(Math.abs(Math.max(...scaled.map(Math.abs)) - recorded.lora_A_max_abs_over_bound)).toBeLessThan(1e-3);
    expect(Math.max(...scaled.map(Math.abs))).toBeLessThanOrEqual(1 + 1e-6);
  });

  it('merge into the recorded weight, in a file and in memory', async () => {
    const recorded = await readFloats(
      (await readHeader(join(golden, 'lora/batch.safetensors'))).tensors.get('merged_q_proj_layer0')!,
    );
    const merged = join(out, 'merged');
    await mergeAdapter(modelDir, adapterDir, merged, { dtype: 'float32' });
    const name = 'model.layers.0.self_attn.q_proj.weight';
    const model = await openModelFolder(merged);
    const written = await loadTensors(model.weights, model.weights.keys());
    expect(maxAbsDifference(written.get(name)!.data, recorded.data)).toBeLessThan(1e-6);

    const base = await openModelFolder(modelDir);
    const inMemory = await loadMergedTensors(base, await openAdapter(adapterDir), base.weights.keys());
    expect(inMemory).toEqual(written);
    expect(model.config).toEqual(base.config);
    const unmerged = await loadTensors(base.weights, base.weights.keys());
    const changed = [...written.keys()].filter(
      (each) => maxAbsDifference(written.get(each)!.data, unmerged.get(each)!.data) > 0,
    );
    expect(changed).toHaveLength(21);
    expect(changed.every((each) => each.endsWith('_proj.weight'))).toBe(true);
  });

  it.each(['bfloat16', 'keep'] as const)('merge into a model stored as %s', async (dtype) => {
    const merged = join(out, dtype);
    const from = dtype === 'keep' ? join(golden, 'qwen3_sharded_bf16/model') : modelDir;
    await mergeAdapter(from, adapterDir, merged, { dtype });
    const model = await openModelFolder(merged);
    expect(model.config.dtype).toBe('bfloat16');
    expect(new Set([...model.weights.values()].map((info) => info.dtype))).toEqual(new Set(['BF16']));
    const base = await openModelFolder(from);
    const exact = await loadMergedTensors(base, await openAdapter(adapterDir), base.weights.keys());
    const rounded = await loadTensors(model.weights, model.weights.keys());
    for (const [name, { data }] of exact) {
      const got = rounded.get(name)!.data;
      expect(data.every((value, i) => Math.abs(got[i]! - value) <= Math.abs(value) * 2 ** -8)).toBe(true);
    }
  });

  it('are not merged over the model they start from', async () => {
    await expect(mergeAdapter(modelDir, adapterDir, `${modelDir}/`)).rejects.toMatchObject({
      code: 'merge.same-folder',
    });
  });
});
