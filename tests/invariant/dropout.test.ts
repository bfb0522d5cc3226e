import { mkdir, mkdtemp, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openAdapter } from '../../src/checkpoints/adapter.js';
import { loadTensors, openModelFolder } from '../../src/checkpoints/model-folder.js';
import { loadConfig } from '../../src/config/load.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { rm } from '../../src/stages/rm.js';
import { sft } from '../../src/stages/sft.js';
import { excess } from '../support/golden.js';
import { writeTinyEncoder } from '../support/tiny-encoder.js';
import { writeTinyModel } from '../support/tiny-model.js';

/*
 * What a row drops out is its own: however the optimizer's batch is cut for the model, a run with dropout ends the same,
 * but for the order of sums. (That memory runs out is one more way to cut it: see memory.test.ts.)
 */

const root = await mkdtemp(join(tmpdir(), 'duanzi-dropout-'));
const at = (name: string): string => join(root, name);
afterAll(() => remove(root, { recursive: true }));

beforeAll(async () => {
  for (const name of ['model', 'encoder', 'data']) await mkdir(at(name));
  await writeTinyModel(at('model'));
  await writeTinyEncoder(at('encoder'));
  const jokes = Array.from(
    { length: 16 },
    (_, i) => `猫排队${i},雨伞${i},键盘,雨伞遇见键盘${'哈'.repeat((3 * i) % 11)}`,
  );
  await writeFile(at('rows.csv'), ['headline,word1,word2,joke', ...jokes].join('\n'));
  const labelled = jokes.map((joke, i) => `${joke},${i % 2}`);
  await writeFile(at('data/rm_train.csv'), ['headline,word1,word2,joke,label', ...labelled].join('\n'));
});

const common = (section: string): Record<string, unknown> => ({
  'data.validationFraction': 0.2,
  'data.templates.headline': '标题：{headline}\n',
  'data.templates.words': '词语：{word1}、{word2}\n',
  [`${section}.maxSteps`]: 4,
  [`${section}.loggingSteps`]: 1,
  [`${section}.learningRate`]: 0.01,
  threads: 1,
});

const context = { onEvent: () => undefined };

interface Result {
  readonly losses: readonly number[];
  readonly weights: ReadonlyMap<string, { readonly data: ArrayLike<number> }>;
}

async function resultOf(out: string, left: 'adapter' | 'model'): Promise<Result> {
  const { weights } = left === 'adapter' ? await openAdapter(join(out, left)) : await openModelFolder(join(out, left));
  return {
    losses: readMetrics(join(out, 'metrics.jsonl')).flatMap(({ values }) => values['loss'] ?? []),
    weights: await loadTensors(weights, weights.keys()),
  };
}

function expectSame(result: Result, { losses, weights }: Result): void {
  expect(losses).toHaveLength(4);
  expect(excess(result.losses, losses, { atol: 1e-5 })).toBeLessThanOrEqual(0);
  expect([...result.weights.keys()]).toEqual([...weights.keys()]);
  for (const [name, { data }] of weights) {
    expect(excess(result.weights.get(name)!.data, data, { atol: 1e-4 }), name).toBeLessThanOrEqual(0);
  }
}

it('of SFT: four samples at once, two and two, or one by one', async () => {
  const train = async (batchSize: number, gradientAccumulationSteps: number, dropout = 0.3): Promise<Result> => {
    const out = at(`sft-${batchSize}-${dropout}`);
    const own = {
      'data.file': at('rows.csv'),
      'lora.r': 4,
      'lora.dropout': dropout,
      'sft.samples': 0,
      'sft.batchSize': batchSize,
      'sft.gradientAccumulationSteps': gradientAccumulationSteps,
    };
    const flags = { ...common('sft'), ...own, model: at('model'), out };
    await sft(await loadConfig({ stage: 'sft', flags }), context);
    return resultOf(out, 'adapter');
  };
  const whole = await train(4, 1);
  expectSame(await train(2, 2), whole);
  expectSame(await train(1, 4), whole);
  // That the masks matter: without them the losses are others.
  expect(excess((await train(4, 1, 0)).losses, whole.losses, { atol: 1e-5 })).toBeGreaterThan(0);
});

it.each([
  ['all weights', {}],
  ['an adapter', { 'rm.lora.r': 4, 'rm.lora.dropout': 0.3 }],
])('of the reward model under R-Drop: eight texts at once, or parts of similar length (%s)', async (title, lora) => {
  const train = async (tokensAtOnce: number, dropout = 0.3): Promise<Result> => {
    const out = at(`rm-${title}-${tokensAtOnce}-${dropout}`);
    const own = {
      ...lora,
      'rm.dropout': dropout,
      'rm.batchSize': 8,
      'rm.tokensAtOnce': tokensAtOnce,
      'rm.maxLength': 48,
      'rm.baselines': false,
    };
    const flags = { ...common('rm'), ...own, model: at('encoder'), 'data.dir': at('data'), out };
    await rm(await loadConfig({ stage: 'rm', flags }), context);
    return resultOf(out, 'model');
  };
  const whole = await train(4096);
  expectSame(await train(200), whole);
  expectSame(await train(96), whole);
  expect(excess((await train(4096, 0)).losses, whole.losses, { atol: 1e-5 })).toBeGreaterThan(0);
});
