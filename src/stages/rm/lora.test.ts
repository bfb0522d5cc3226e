import { mkdir, mkdtemp, readdir, readFile, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { excess } from '../../../tests/support/golden.js';
import { TINY_BERT, TINY_ROBERTA, writeTinyEncoder } from '../../../tests/support/tiny-encoder.js';
import { writeTinyModel } from '../../../tests/support/tiny-model.js';
import { checkAdapter, loraNamesOf, openAdapter, savedTensors } from '../../checkpoints/adapter.js';
import { loraOf } from '../../checkpoints/adapter-config.js';
import { loadTensors, openModelFolder } from '../../checkpoints/model-folder.js';
import { loadConfig } from '../../config/load.js';
import { Classifier } from '../../rewards/classifier.js';
import { Interrupted, type StageContext } from '../../runs/events.js';
import { readMetrics } from '../../runs/metrics.js';
import { Runtime } from '../../runtime/runtime.js';
import { uploadAdapter } from '../../generation/policy.js';
import { rm } from '../rm.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-rm-lora-'));
const at = (name: string): string => join(root, name);
const runtime = new Runtime({ threads: 1 });
afterAll(async () => {
  await runtime.close();
  await remove(root, { recursive: true });
});

/** Starts to begin from, with the modules that learn whole and the number of layers that get an adapter by default. */
const FAMILIES = {
  deberta: { head: ['pooler', 'classifier'], adapted: 12, write: (dir: string) => writeTinyEncoder(dir) },
  bert: { head: ['pooler', 'classifier'], adapted: 12, write: (dir: string) => writeTinyEncoder(dir, TINY_BERT) },
  roberta: { head: ['classifier'], adapted: 12, write: (dir: string) => writeTinyEncoder(dir, TINY_ROBERTA) },
  causal: { head: ['score'], adapted: 14, write: (dir: string) => writeTinyModel(dir) },
} as const;

beforeAll(async () => {
  for (const [name, { write }] of Object.entries(FAMILIES)) {
    await mkdir(at(name));
    await write(at(name));
  }
  const rows = Array.from({ length: 24 }, (_, i) => {
    const [animal, thing] = ['猫狗兔鸡'[i % 4]!, ['雨伞', '键盘', '石头'][i % 3]!];
    return `${animal}排队${i % 12},${animal},${thing},${animal}买${thing}${i < 12 ? '，笑了,1' : '，开会,0'}`;
  });
  await writeFile(at('rows.csv'), ['headline,word1,word2,joke,label', ...rows].join('\n'));
  const pairs = rows.slice(0, 12).map((_, i) => ({ prompt: `标题${i}`, chosen: `笑了${i}`, rejected: `开会${i}` }));
  await writeFile(at('pairs.jsonl'), pairs.map((pair) => JSON.stringify(pair)).join('\n'));
});

const silent: StageContext = { onEvent: () => undefined };
const train = async (flags: Record<string, unknown>, context = silent): Promise<string> => {
  const own = {
    'data.file': at('rows.csv'),
    'data.validationFraction': 0.25,
    'data.templates.headline': '标题：{headline}，',
    'data.templates.words': '词语：{word1}、{word2}，',
    'rm.maxLength': 40,
    'rm.batchSize': 4,
    'rm.maxSteps': 6,
    'rm.evalSteps': 3,
    'rm.saveSteps': 2,
    'rm.loggingSteps': 1,
    'rm.learningRate': 0.01,
    'rm.baselines': false,
    'rm.lora.r': 4,
    threads: 1,
  };
  return rm(await loadConfig({ stage: 'rm', flags: { ...own, ...flags } }), context);
};

describe.each(Object.entries(FAMILIES))('an adapter on %s', (name, { head, adapted }) => {
  let out: string;
  beforeAll(async () => {
    out = await train({ model: at(name), out: at(`run-${name}`) });
  });

  it("is left in PEFT's layout with the head, and opens again", async () => {
    const { config, weights } = await openAdapter(join(out, 'adapter'));
    expect(config).toMatchObject({ r: 4, loraAlpha: 8, loraDropout: 0.05, taskType: 'SEQ_CLS', modulesToSave: head });
    // The base has a head for masked tokens or next ones in place of the classifier's, whose shapes `model/` has.
    checkAdapter({ dir: out, config, weights }, (await openModelFolder(join(out, 'model'))).weights);
    expect(loraNamesOf({ weights })).toHaveLength(2 * adapted);
    const saved = [...savedTensors({ config, weights }).keys()];
    expect(saved.length).toBeGreaterThan(0);
    expect(saved.every((tensor) => head.some((module) => tensor.includes(module)))).toBe(true);
    expect(saved.length + 2 * adapted).toBe(weights.size);
  });

  it('has learned, and nothing else has: beside the adapted layers and the head the model is the base', async () => {
    const [before, after] = [await openModelFolder(at(name)), await openModelFolder(join(out, 'model'))];
    const adapter = await openAdapter(join(out, 'adapter'));
    const layers = new Set(
      loraNamesOf(adapter).map((factor) => factor.replace(/^base_model\.model\.(.*)\.lora_[AB]/, '$1')),
    );
    const saved = savedTensors(adapter);
    const bodies = [...after.weights.keys()].filter((tensor) => !saved.has(tensor));
    const [was, is] = [await loadTensors(before.weights, bodies), await loadTensors(after.weights, bodies)];
    const changed = bodies.filter(
      (tensor) => !Buffer.from(was.get(tensor)!.data.buffer).equals(bytes(is.get(tensor)!)),
    );
    expect(new Set(changed)).toEqual(layers);
    expect(changed).toHaveLength(adapted);
    const [kept, own] = [await loadTensors(after.weights, saved.keys()), await loadTensors(saved, saved.keys())];
    expect(kept).toEqual(own);
  });

  it('scores as the model that it is merged into', async () => {
    const [base, merged] = [await openModelFolder(at(name)), await openModelFolder(join(out, 'model'))];
    const adapter = await openAdapter(join(out, 'adapter'));
    const factors = Object.fromEntries(await loadTensors(adapter.weights, loraNamesOf(adapter)));
    const weights = new Map([...base.weights, ...savedTensors(adapter)]);
    const apart = await Classifier.create(runtime, merged.config, weights, { lora: loraOf(adapter) });
    const whole = await Classifier.create(runtime, merged.config, merged.weights);
    const sequences = [[2, 30, 31, 3], [2, 32, 3], Array.from({ length: 30 }, (_, i) => 4 + i)];
    const options = { batchSize: 3, padTokenId: merged.config.padTokenId! };
    const fed = (await uploadAdapter(runtime, { adapter: factors })).adapter!;
    const expected = await apart.logits(sequences, { ...options, weights: fed });
    const logits = await whole.logits(sequences, options);
    expect(excess(logits.flat(), expected.flat(), { atol: 1e-5, rtol: 1e-5 })).toBeLessThanOrEqual(0);
  });
});

const bytes = ({ data }: { readonly data: Float32Array }): Uint8Array => new Uint8Array(data.buffer);

it('drops out on its own where the model does not, twice for R-Drop', async () => {
  const kls = async (dropout: number): Promise<number[]> => {
    const flags = { model: at('deberta'), 'rm.dropout': 0, 'rm.lora.dropout': dropout, out: at(`drop-${dropout}`) };
    const rows = readMetrics(join(await train({ ...flags, 'rm.maxSteps': 3, 'rm.warmupRatio': 0 }), 'metrics.jsonl'));
    return rows.flatMap(({ values }) => values['rdrop_kl'] ?? []);
  };
  expect(await kls(0)).toEqual([]);
  const [first, ...later] = await kls(0.5);
  // At first the adapter adds nothing, so nothing can be left out of it.
  expect(first).toBe(0);
  expect(later.every((kl) => kl > 0)).toBe(true);
});

it('goes on after an interruption bit for bit, in parts and computed again', async () => {
  const controller = new AbortController();
  const stopping: StageContext = {
    signal: controller.signal,
    onEvent: (event) => {
      if (event.type === 'progress' && event.task === 'rm' && event.done === 3) controller.abort();
    },
  };
  const flags = { model: at('deberta'), 'rm.recompute': true, 'rm.tokensAtOnce': 96 };
  const [whole, parts] = [at('whole'), at('parts')];
  await train({ ...flags, out: whole });
  await expect(train({ ...flags, out: parts }, stopping)).rejects.toThrow(Interrupted);
  await train({ ...flags, out: parts, resume: true });
  for (const file of ['model/model.safetensors', 'adapter/adapter_model.safetensors', 'metrics.jsonl']) {
    expect((await readFile(join(parts, file))).equals(await readFile(join(whole, file))), file).toBe(true);
  }
});

it('learns a reward from pairs', async () => {
  const flags = { 'data.file': at('pairs.jsonl'), 'rm.objective': 'pairs', 'rm.maxSteps': 20, 'rm.learningRate': 0.03 };
  const out = await train({ model: at('deberta'), out: at('pairs'), ...flags });
  const accuracies = readMetrics(join(out, 'metrics.jsonl')).flatMap(({ values }) => values['eval_accuracy'] ?? []);
  expect(accuracies.at(-1)).toBe(1);
  expect((await openModelFolder(join(out, 'model'))).config.labels).toHaveLength(1);
  expect((await readdir(join(out, 'adapter'))).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
});

it('refuses a target that no layer answers to, with the names of those there are, and settings without an adapter', async () => {
  const refused = train({ model: at('deberta'), out: at('no'), 'rm.lora.targetModules': 'q_proj,dense' });
  await expect(refused).rejects.toMatchObject({
    code: 'adapter.unknown-module',
    message: 'The model has no linear module named `q_proj`.',
    fix: 'Choose target modules among dense, key_proj, query_proj, value_proj.',
    exitCode: 2,
  });
  await expect(readdir(at('no'))).rejects.toThrow('ENOENT');
  const off = train({ model: at('deberta'), out: at('no'), 'rm.lora.r': 0, 'rm.lora.alpha': 8 });
  await expect(off).rejects.toMatchObject({
    code: 'config.combination',
    message: /rm\.lora\.alpha is given, but r is 0/,
  });
});
