import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { openAdapter } from '../../src/checkpoints/adapter.js';
import { loadTensors, openModelFolder } from '../../src/checkpoints/model-folder.js';
import { loadConfig } from '../../src/config/load.js';
import type { StageContext, StageEvent } from '../../src/runs/events.js';
import { readManifest } from '../../src/runs/manifest.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { dpo } from '../../src/stages/dpo.js';
import { grpo } from '../../src/stages/grpo.js';
import { pretrain } from '../../src/stages/pretrain.js';
import { rm } from '../../src/stages/rm.js';
import { sft } from '../../src/stages/sft.js';
import { excess } from '../support/golden.js';
import { writeTinyClassifier, writeTinyEncoder } from '../support/tiny-encoder.js';
import { writeTinyModel } from '../support/tiny-model.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-memory-'));
const at = (name: string): string => join(root, name);
afterAll(() => remove(root, { recursive: true }));
// The worker's thread copies the environment when it starts, so a runtime opened later sees the change.
afterEach(() => {
  delete process.env['DUANZI_FAULT_FEED_BYTES'];
});

beforeAll(async () => {
  await mkdir(at('model'));
  await writeTinyModel(at('model'));
  const jokes = Array.from({ length: 16 }, (_, i) => `猫排队${i},雨伞${i},键盘,雨伞遇见键盘${'哈'.repeat(i % 5)}`);
  await writeFile(at('rows.csv'), ['headline,word1,word2,joke', ...jokes].join('\n'));
  for (const name of ['encoder', 'judge', 'data']) await mkdir(at(name));
  await writeTinyEncoder(at('encoder'));
  await writeTinyClassifier(at('judge'));
  const labelled = jokes.map((joke, i) => `${joke},${i % 3 === 0 ? 0 : 1}`);
  await writeFile(at('data/rm_train.csv'), ['headline,word1,word2,joke,label', ...labelled].join('\n'));
  const pairs = Array.from({ length: 16 }, (_, i) => ({
    prompt: `标题${i}`,
    chosen: `笑了${i}`,
    rejected: `包子${i}`,
  }));
  await writeFile(at('pairs.jsonl'), pairs.map((pair) => JSON.stringify(pair)).join('\n'));
});

/** What every trainer is told; batches of eight are what does not fit. */
const common = (section: string, steps: number): Record<string, unknown> => ({
  'data.validationFraction': 0.2,
  'data.templates.headline': '标题：{headline}\n',
  'data.templates.words': '词语：{word1}、{word2}\n',
  [`${section}.batchSize`]: 8,
  [`${section}.maxSteps`]: steps,
  [`${section}.loggingSteps`]: 1,
  [`${section}.saveSteps`]: 1,
  [`${section}.learningRate`]: 0.01,
  threads: 1,
});

/** Trains what `name` says in `out`. */
const TRAINERS = {
  sft: async (out: string, context: StageContext) => {
    const own = { model: at('model'), 'data.file': at('rows.csv'), 'lora.r': 4, 'lora.dropout': 0.3, 'sft.samples': 0 };
    return sft(await loadConfig({ stage: 'sft', flags: { ...common('sft', 3), ...own, out } }), context);
  },
  dpo: async (out: string, context: StageContext) => {
    const own = { model: at('model'), 'data.file': at('pairs.jsonl'), 'lora.r': 4, 'dpo.warmupRatio': 0 };
    return dpo(await loadConfig({ stage: 'dpo', flags: { ...common('dpo', 2), ...own, out } }), context);
  },
  'pretrain, causal': async (out: string, context: StageContext) => {
    const own = { model: at('model'), 'data.file': at('rows.csv'), 'pretrain.objective': 'causal' };
    const flags = { ...common('pretrain', 2), ...own, out };
    return pretrain(await loadConfig({ stage: 'pretrain', flags }), context);
  },
  'pretrain, masked': async (out: string, context: StageContext) => {
    const size = {
      vocabSize: 200,
      hiddenSize: 16,
      intermediateSize: 32,
      layers: 1,
      heads: 2,
      buckets: 8,
      dropout: 0.3,
    };
    const own = Object.fromEntries(Object.entries(size).map(([key, value]) => [`pretrain.${key}`, value]));
    const flags = {
      ...common('pretrain', 2),
      ...own,
      'data.file': at('rows.csv'),
      'pretrain.objective': 'masked',
      out,
    };
    return pretrain(await loadConfig({ stage: 'pretrain', flags }), context);
  },
  rm: async (out: string, context: StageContext) => {
    const own = { model: at('encoder'), 'data.dir': at('data'), 'rm.dropout': 0.3, 'rm.baselines': false };
    return rm(await loadConfig({ stage: 'rm', flags: { ...common('rm', 2), ...own, out } }), context);
  },
  'rm, adapter': async (out: string, context: StageContext) => {
    const own = { model: at('encoder'), 'data.dir': at('data'), 'rm.baselines': false };
    const lora = { 'rm.lora.r': 4, 'rm.lora.dropout': 0.3 };
    return rm(await loadConfig({ stage: 'rm', flags: { ...common('rm', 2), ...own, ...lora, out } }), context);
  },
  'rm, pairs': async (out: string, context: StageContext) => {
    // Without centering nothing but rounding moves the bias, which Adam then makes steps of.
    const own = { 'data.file': at('pairs.jsonl'), 'rm.dropout': 0.3, 'rm.objective': 'pairs', 'rm.centering': 0.1 };
    const flags = { ...common('rm', 2), ...own, model: at('encoder'), out };
    return rm(await loadConfig({ stage: 'rm', flags }), context);
  },
  grpo: async (out: string, context: StageContext) => {
    const own = { model: at('model'), rm: at('judge'), 'data.file': at('rows.csv'), 'lora.r': 4 };
    const rollouts = { numGenerations: 2, completionsPerRollout: 8, maxCompletionLength: 4, evalPrompts: 2 };
    const settings = Object.fromEntries(Object.entries(rollouts).map(([key, value]) => [`grpo.${key}`, value]));
    const flags = { ...common('grpo', 2), ...own, ...settings, 'grpo.warmupSteps': 0, out };
    return grpo(await loadConfig({ stage: 'grpo', flags }), context);
  },
};

it.each([
  // Bytes that a batch of eight exceeds and a smaller one does not; the reference of DPO feeds an adapter of zeros too.
  { name: 'sft', limit: 2000, left: 'adapter' },
  { name: 'dpo', limit: 8800, left: 'adapter' },
  { name: 'pretrain, causal', limit: 2000, left: 'model' },
  { name: 'pretrain, masked', limit: 1000, left: 'model' },
  { name: 'rm', limit: 700, left: 'model' },
  { name: 'rm, adapter', limit: 700, left: 'adapter' },
  { name: 'rm, pairs', limit: 700, left: 'model' },
  { name: 'grpo', limit: 8800, left: 'adapter' },
] as const)('$name goes on with smaller batches where memory runs out, to the same result', async (each) => {
  const { name, limit, left } = each;
  await TRAINERS[name](at(`${name}-whole`), { onEvent: () => undefined });
  process.env['DUANZI_FAULT_FEED_BYTES'] = String(limit);
  const events: StageEvent[] = [];
  await TRAINERS[name](at(`${name}-short`), { onEvent: (event) => events.push(event) });

  const { microBatch, interventions } = (await readManifest(at(`${name}-short`)))!;
  expect(microBatch).toBeLessThan(8);
  const own = interventions.filter(({ code }) => code === 'memory.smaller-batches');
  const told = events.filter((event) => event.type === 'warning' && event.code === 'memory.smaller-batches');
  expect(told).toHaveLength(Math.log2(8 / microBatch!));
  expect(own).toHaveLength(told.length);

  const losses = (out: string): number[] =>
    readMetrics(join(at(out), 'metrics.jsonl')).flatMap(({ values }) => values['loss'] ?? []);
  expect(excess(losses(`${name}-short`), losses(`${name}-whole`), { atol: 1e-5 })).toBeLessThanOrEqual(0);
  const weights = async (out: string) => {
    const folder = join(at(out), left);
    const { weights: stored } = left === 'adapter' ? await openAdapter(folder) : await openModelFolder(folder);
    return loadTensors(stored, stored.keys());
  };
  const [short, whole] = [await weights(`${name}-short`), await weights(`${name}-whole`)];
  for (const [weight, { data }] of whole) {
    expect(excess(short.get(weight)!.data, data, { atol: 1e-4 }), weight).toBeLessThanOrEqual(0);
  }
});

it('gives up where not even one sample at a time fits, as a fault of the machine', async () => {
  process.env['DUANZI_FAULT_FEED_BYTES'] = '10';
  const refused = TRAINERS.sft(at('hopeless'), { onEvent: () => undefined });
  await expect(refused).rejects.toMatchObject({ code: 'machine.memory', exitCode: 3 });
});

it('names an allocation that the system refuses as want of memory', async () => {
  // A process that may hold 3 GB of data asks the runtime for 8 GB.
  const runtime = new URL('../../src/runtime/runtime.ts', import.meta.url).href;
  const script = `
    import { Runtime } from ${JSON.stringify(runtime)};
    const runtime = new Runtime({ threads: 1 });
    const refused = await runtime.allocate('float32', [2 ** 31]).catch((error) => error);
    console.log(refused.code, refused.exitCode);
    await runtime.close();`;
  await writeFile(at('ask.mts'), script);
  const command = `ulimit -d 3000000; exec "${process.execPath}" --import "${import.meta.resolve('tsx')}" "${at('ask.mts')}"`;
  const { stdout } = await promisify(execFile)('bash', ['-c', command]);
  expect(stdout.trim()).toBe('machine.memory 3');
});
