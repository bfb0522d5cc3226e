import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { openAdapter } from '../../src/checkpoints/adapter.js';
import { loadTensors } from '../../src/checkpoints/model-folder.js';
import { loadConfig } from '../../src/config/load.js';
import type { StageContext, StageEvent } from '../../src/runs/events.js';
import { readManifest } from '../../src/runs/manifest.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { dpo } from '../../src/stages/dpo.js';
import { sft } from '../../src/stages/sft.js';
import { excess } from '../support/golden.js';
import { writeTinyModel } from '../support/tiny-model.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-memory-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));
// The worker's thread copies the environment when it starts, so a runtime opened later sees the change.
afterEach(() => {
  delete process.env['DUANZI_FAULT_FEED_BYTES'];
});

beforeAll(async () => {
  await writeTinyModel(at('model'));
  const jokes = Array.from({ length: 16 }, (_, i) => `猫排队${i},雨伞${i},键盘,雨伞遇见键盘${'哈'.repeat(i % 5)}`);
  await writeFile(at('rows.csv'), ['headline,word1,word2,joke', ...jokes].join('\n'));
  const pairs = Array.from({ length: 16 }, (_, i) => ({
    prompt: `标题${i}`,
    chosen: `笑了${i}`,
    rejected: `包子${i}`,
  }));
  await writeFile(at('pairs.jsonl'), pairs.map((pair) => JSON.stringify(pair)).join('\n'));
});

const runSft = async (out: string, context: StageContext): Promise<string> => {
  const flags = {
    model: at('model'),
    'data.file': at('rows.csv'),
    'data.validationFraction': 0.2,
    'data.templates.headline': '标题：{headline}\n',
    'data.templates.words': '词语：{word1}、{word2}\n',
    'lora.r': 4,
    'lora.dropout': 0,
    'sft.batchSize': 8,
    'sft.maxSteps': 4,
    'sft.samples': 0,
    'sft.loggingSteps': 1,
    'sft.saveSteps': 1,
    'sft.learningRate': 0.01,
    threads: 1,
    out,
  };
  return sft(await loadConfig({ stage: 'sft', flags }), context);
};
const runDpo = async (out: string, context: StageContext): Promise<string> => {
  const flags = {
    model: at('model'),
    'data.file': at('pairs.jsonl'),
    'data.validationFraction': 0.2,
    'lora.r': 4,
    'dpo.batchSize': 8,
    'dpo.maxSteps': 3,
    'dpo.loggingSteps': 1,
    'dpo.learningRate': 0.01,
    'dpo.warmupRatio': 0,
    threads: 1,
    out,
  };
  return dpo(await loadConfig({ stage: 'dpo', flags }), context);
};

it.each([
  // Bytes that a batch of eight exceeds and a smaller one does not; the reference of DPO feeds an adapter of zeros too.
  { name: 'sft', run: runSft, limit: 2000 },
  { name: 'dpo', run: runDpo, limit: 8800 },
])('$name goes on with smaller batches where memory runs out, to the same result', async ({ name, run, limit }) => {
  await run(at(`${name}-whole`), { onEvent: () => undefined });
  process.env['DUANZI_FAULT_FEED_BYTES'] = String(limit);
  const events: StageEvent[] = [];
  await run(at(`${name}-short`), { onEvent: (event) => events.push(event) });

  const { microBatch, interventions } = (await readManifest(at(`${name}-short`)))!;
  expect(microBatch).toBeLessThan(8);
  expect(interventions.map(({ code }) => code)).toEqual(interventions.map(() => 'memory.smaller-batches'));
  const told = events.filter((event) => event.type === 'warning' && event.code === 'memory.smaller-batches');
  expect(told).toHaveLength(Math.log2(8 / microBatch!));
  expect(interventions).toHaveLength(told.length);

  const losses = (out: string): number[] =>
    readMetrics(join(at(out), 'metrics.jsonl')).flatMap(({ values }) => values['loss'] ?? []);
  expect(excess(losses(`${name}-short`), losses(`${name}-whole`), { atol: 1e-5 })).toBeLessThanOrEqual(0);
  const weights = async (out: string) => {
    const { weights: stored } = await openAdapter(join(at(out), 'adapter'));
    return loadTensors(stored, stored.keys());
  };
  const [short, whole] = [await weights(`${name}-short`), await weights(`${name}-whole`)];
  for (const [weight, { data }] of whole) {
    expect(excess(short.get(weight)!.data, data, { atol: 1e-4 }), weight).toBeLessThanOrEqual(0);
  }
});

it('gives up where not even one sample at a time fits, as a fault of the machine', async () => {
  process.env['DUANZI_FAULT_FEED_BYTES'] = '10';
  const refused = runSft(at('hopeless'), { onEvent: () => undefined });
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
