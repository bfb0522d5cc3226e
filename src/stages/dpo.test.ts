import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { writeTinyAdapter, writeTinyModel } from '../../tests/support/tiny-model.js';
import { loadConfig } from '../config/load.js';
import type { StageContext } from '../runs/events.js';
import { readMetrics } from '../runs/metrics.js';
import { dpo } from './dpo.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-dpo-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

const pair = (i: number): Record<string, string> => ({
  prompt: `标题：猫排队${i}\n`,
  chosen: `雨伞遇见键盘，都笑了${'哈'.repeat(i % 4)}`,
  rejected: `包子不好${i}`,
});
const writePairs = (name: string, rows: readonly unknown[]): Promise<void> =>
  writeFile(at(name), rows.map((row) => JSON.stringify(row)).join('\n'));

beforeAll(async () => {
  await writeTinyModel(at('model'));
  await writeTinyAdapter(at('sft'));
  await writePairs(
    'pairs.jsonl',
    Array.from({ length: 16 }, (_, i) => pair(i)),
  );
});

async function run(
  flags: Record<string, unknown>,
  context: StageContext = { onEvent: () => undefined },
): Promise<string> {
  const own = {
    model: at('model'),
    'data.file': at('pairs.jsonl'),
    'data.validationFraction': 0.25,
    'lora.r': 4,
    'dpo.maxSteps': 6,
    'dpo.batchSize': 2,
    'dpo.gradientAccumulationSteps': 2,
    'dpo.learningRate': 0.01,
    'dpo.loggingSteps': 1,
    'dpo.evalSteps': 2,
    'dpo.saveSteps': 4,
    threads: 1,
  };
  return dpo(await loadConfig({ stage: 'dpo', flags: { ...own, ...flags } }), context);
}

it('learns on an SFT adapter which text is preferred, also of held-out pairs, and resumes bit for bit', async () => {
  const flags = { adapter: at('sft') };
  const whole = await run({ ...flags, out: at('whole') });
  const rows = readMetrics(join(whole, 'metrics.jsonl'));
  const margins = rows.flatMap(({ values }) => values['eval_rewards/margins'] ?? []);
  expect(margins[0]).toBeCloseTo(0, 4);
  expect(margins.at(-1)).toBeGreaterThan(0.05);
  const losses = rows.flatMap(({ values }) => values['loss'] ?? []);
  expect(losses[0]).toBeCloseTo(Math.log(2), 4);
  expect(losses.at(-1)).toBeLessThan(0.6);

  const crashing: StageContext = {
    onEvent: (event) => {
      if (event.type === 'progress' && event.task === 'dpo' && event.done === 5) throw new Error('the lights went out');
    },
  };
  await expect(run({ ...flags, out: at('broken') }, crashing)).rejects.toThrow('the lights went out');
  await run({ ...flags, out: at('broken'), resume: true });
  const file = (out: string): Promise<Buffer> => readFile(join(at(out), 'adapter/adapter_model.safetensors'));
  expect((await file('broken')).equals(await file('whole'))).toBe(true);
  expect(readMetrics(join(at('broken'), 'metrics.jsonl'))).toEqual(rows);
});

it.each([
  ['data.missing-column', [{ prompt: 'a', chosen: 'b' }], 1],
  ['data.missing-column', [{ chosen: 'b', rejected: 'c' }], 1],
  ['data.same-texts', [pair(0), { prompt: 'a', chosen: 'b', rejected: 'b' }], 2],
  ['data.empty-text', [pair(0), pair(1), { prompt: 'a', chosen: 'b', rejected: ' ' }], 3],
  ['data.empty-text', [pair(0), { prompt: '', chosen: 'b', rejected: 'c' }], 2],
  ['data.empty-completion', [pair(0), { prompt: 'a', chosen: '', rejected: 'c' }], 2],
])('refuses pairs with %s and names the line', async (code, rows, line) => {
  await writePairs('bad.jsonl', rows);
  const refused = run({ 'data.file': at('bad.jsonl'), out: at('refused') });
  await expect(refused).rejects.toMatchObject({ code, where: `${at('bad.jsonl')}:${line}`, exitCode: 2 });
});

it('asks for a file of pairs', async () => {
  const loading = loadConfig({ stage: 'dpo', flags: { model: at('model'), 'data.dir': root } });
  await expect(loading).rejects.toThrow(/data\.file/);
});
