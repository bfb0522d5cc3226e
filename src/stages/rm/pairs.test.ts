import { mkdtemp, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { writeTinyClassifier, writeTinyEncoder } from '../../../tests/support/tiny-encoder.js';
import { loadConfig } from '../../config/load.js';
import { RewardModel } from '../../rewards/reward-model.js';
import { readMetrics } from '../../runs/metrics.js';
import { Runtime } from '../../runtime/runtime.js';
import { classify } from '../classify.js';
import { rm } from '../rm.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-rm-pairs-'));
const at = (name: string): string => join(root, name);
afterAll(() => remove(root, { recursive: true }));

const pairs = Array.from({ length: 32 }, (_, i) => ({
  prompt: `标题：${'猫狗兔鸡'[i % 4]!}排队${i % 10}`,
  chosen: `雨伞遇见键盘，笑了${i % 7}`,
  rejected: `会议今天开了${i % 5}`,
}));

const train = async (flags: Record<string, unknown>): Promise<string> => {
  const own = {
    'data.file': at('pairs.jsonl'),
    'data.validationFraction': 0.25,
    'rm.objective': 'pairs',
    'rm.maxSteps': 20,
    'rm.batchSize': 4,
    'rm.learningRate': 0.005,
    'rm.maxLength': 40,
    'rm.loggingSteps': 1,
    threads: 1,
  };
  return rm(await loadConfig({ stage: 'rm', flags: { ...own, ...flags } }), { onEvent: () => undefined });
};

it('learns from pairs a head of one label, which rewards and is classified with', async () => {
  await writeTinyEncoder(at('encoder'));
  await writeFile(at('pairs.jsonl'), pairs.map((pair) => JSON.stringify(pair)).join('\n'));
  const out = await train({ model: at('encoder'), out: at('run') });
  const metrics = readMetrics(join(out, 'metrics.jsonl'));
  const accuracies = metrics.flatMap(({ values }) => values['eval_accuracy'] ?? []);
  expect(accuracies.at(-1)).toBe(1);
  expect(metrics.flatMap(({ values }) => values['eval_loss'] ?? []).at(-1)).toBeLessThan(0.5);

  const runtime = new Runtime({ threads: 1 });
  const model = await RewardModel.open(runtime, join(out, 'model'));
  const rewards = async (which: 'chosen' | 'rejected'): Promise<number[]> =>
    model.score(
      pairs.map((pair) => ({ prompt: pair.prompt, completion: pair[which] })),
      { batchSize: 8 },
    );
  const [better, worse] = [await rewards('chosen'), await rewards('rejected')];
  expect(better.every((reward, i) => reward > worse[i]!)).toBe(true);
  await runtime.close();

  const config = await loadConfig({ stage: 'classify', flags: { model: join(out, 'model'), threads: 1 } });
  const inputs = [{ prompt: pairs[0]!.prompt, completion: pairs[0]!.chosen }];
  for await (const { logits, probability } of classify(config, inputs, { onEvent: () => undefined })) {
    expect(logits).toEqual([expect.closeTo(better[0]!, 4)]);
    expect(probability).toBeCloseTo(1 / (1 + Math.exp(-logits[0]!)), 9);
  }
});

it('refuses a classifier of two labels: its head is not a reward', async () => {
  await writeTinyClassifier(at('two'));
  await expect(train({ model: at('two'), out: at('refused') })).rejects.toMatchObject({ code: 'model.labels' });
});
