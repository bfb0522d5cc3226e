import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import { ALARMS_FILE, readAlarms } from '../../src/evaluation/alarms.js';
import type { StageEvent } from '../../src/runs/events.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { grpo } from '../../src/stages/grpo.js';
import { sft } from '../../src/stages/sft.js';
import { MINI_HUMOR, miniRows, writeMiniData } from '../support/mini-humor.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-gaming-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

const NANO = fileURLToPath(new URL('../../assets/nano-qwen3', import.meta.url));

/** Of the characters that a text has, how many are one of the hundred commonest: a property of what is written, not of how much. */
const COMMON =
  "completion === '' ? null : [...completion].filter((c) => '的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从'.includes(c)).length / [...completion].length";

/** The shipped nano model with a reward of one line. */
async function run(name: string, score: string, flags: Record<string, unknown> = {}): Promise<StageEvent[]> {
  await writeFile(at(`${name}.ts`), `export default (rows: any[]) => rows.map(({ completion }) => ${score});\n`);
  const events: StageEvent[] = [];
  const config = await loadConfig({
    stage: 'grpo',
    flags: {
      model: NANO,
      'data.dir': MINI_HUMOR,
      'grpo.rewards.file.path': at(`${name}.ts`),
      'grpo.numGenerations': 8,
      'grpo.completionsPerRollout': 16,
      'grpo.batchSize': 8,
      'grpo.maxSteps': 50,
      'grpo.maxCompletionLength': 16,
      'grpo.learningRate': 0.005,
      'grpo.warmupSteps': 0,
      'grpo.beta': 0.02,
      'grpo.loggingSteps': 1,
      'grpo.evalPrompts': 0,
      threads: 2,
      out: at(name),
      ...flags,
    },
  });
  await grpo(config, { onEvent: (event) => events.push(event) });
  return events;
}

const warnings = (events: readonly StageEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'warning' ? [event.code] : []));

/** On two idle cores these runs take seconds. */
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

it('a reward that is length sets off the alarm within 50 steps, and the report shows it', async () => {
  const events = await run('length', 'completion.length', { 'grpo.maxSteps': 16 });
  expect(warnings(events)).toContain('gaming.length-correlation');
  const alarms = readAlarms(at('length'));
  expect(alarms.find(({ name }) => name === 'length-correlation')!.step).toBeLessThan(16);
  expect(alarms[0]!.message).toMatch(/^Longer completions of the same prompt are rewarded more/);
  for (const { message } of alarms) expect(message).not.toContain('NaN');
  expect(await readFile(at('length/report.md'), 'utf8')).toContain('Longer completions of the same prompt');
  const figures = readMetrics(at('length/metrics.jsonl')).filter(({ values }) => 'gaming/length_correlation' in values);
  expect(figures).toHaveLength(8);
  for (const { values } of figures) expect(values['gaming/length_correlation']).toBeCloseTo(1, 6);
});

it('an honest reward does not', async () => {
  const events = await run('honest', COMMON);
  expect(warnings(events)).toEqual([]);
  await expect(readFile(at(`honest/${ALARMS_FILE}`))).rejects.toThrow('ENOENT');
  const rewards = readMetrics(at('honest/metrics.jsonl')).flatMap(({ values }) => values['reward'] ?? []);
  const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  expect(mean(rewards.slice(-5))).toBeGreaterThan(mean(rewards.slice(0, 5)));
});

/** A rate at which a policy finds within 50 steps what pays, and nothing that holds it back. */
const FAST = { 'grpo.learningRate': 0.03, 'grpo.beta': 0, 'grpo.batchSize': 16 };

it('a reward that is had by one character alone sets off the alarm of variety', async () => {
  const share = "[...completion].filter((c) => c === '的').length / Math.max(1, [...completion].length)";
  const events = await run('one-character', share, { ...FAST, 'grpo.maxSteps': 36 });
  expect(warnings(events)).toContain('gaming.variety');
  const figures = readMetrics(at('one-character/metrics.jsonl')).flatMap(
    ({ values }) => values['gaming/distinct_2'] ?? [],
  );
  expect(figures[0]).toBeGreaterThan(0.9);
  expect(figures.at(-1)).toBeLessThan(0.2);
  const told = readAlarms(at('one-character')).find(({ name }) => name === 'variety')!;
  expect(told.message).toMatch(/^Variety is lost: distinct-2 of the same amount of text is/);
});

describe('a model that has seen one joke too often', () => {
  const own = { 'data.dir': at('repeated'), 'data.validationFraction': 0, 'grpo.epochs': 20 };
  let joke: string;
  beforeAll(async () => {
    const rows = miniRows(48);
    const jokes = rows.filter(({ label }) => label === '1');
    joke = jokes[0]!.joke;
    const repeated = new Set(jokes.slice(0, 8));
    await writeMiniData(
      at('repeated'),
      rows.map((row) => (repeated.has(row) ? { ...row, joke } : row)),
    );
    const settings = { epochs: 100, maxSteps: 19, batchSize: 4, learningRate: 0.003, maxLength: 128, samples: 0 };
    const sections = Object.fromEntries(Object.entries(settings).map(([key, value]) => [`sft.${key}`, value]));
    const flags = { ...sections, model: NANO, 'data.dir': at('repeated'), 'data.validationFraction': 0, threads: 2 };
    await sft(await loadConfig({ stage: 'sft', flags: { ...flags, out: at('seen') } }), { onEvent: () => undefined });
  });
  const copied = (name: string): number[] =>
    readMetrics(at(`${name}/metrics.jsonl`)).flatMap(({ values }) => values['gaming/copied'] ?? []);

  it('and is paid for copying it sets off the alarm of copying', async () => {
    // The longest stretch of the joke that a text holds.
    const longest = `(() => {
      const joke = ${JSON.stringify(joke)};
      let best = 0;
      for (let i = 0; i < completion.length; i++)
        while (i + best < completion.length && joke.includes(completion.slice(i, i + best + 1))) best++;
      return best ** 2;
    })()`;
    const flags = { ...own, ...FAST, adapter: at('seen/adapter'), 'grpo.learningRate': 0.08, 'grpo.maxSteps': 44 };
    expect(warnings(await run('copying', longest, flags))).toContain('gaming.copied');
    const figures = copied('copying');
    expect(figures[0]).toBeLessThan(0.15);
    expect(figures.at(-1)).toBeGreaterThan(0.3);
    const told = readAlarms(at('copying')).find(({ name }) => name === 'copied')!;
    expect(told.message).toMatch(/% of what is written stands in the training jokes/);
  });

  it('and is paid for something else sets off none', async () => {
    const flags = { ...own, ...FAST, adapter: at('seen/adapter'), 'grpo.maxSteps': 40 };
    expect(warnings(await run('not-copying', COMMON, flags))).toEqual([]);
    expect(copied('not-copying')).toHaveLength(40);
  });
});

it('what puzzles people is explained once', async () => {
  const events = await run('notes', 'completion.length % 7', {
    'grpo.maxSteps': 4,
    'grpo.lossType': 'grpo',
    'grpo.batchSize': 16,
  });
  const notes = events.flatMap((event) => (event.type === 'note' ? [event.code] : []));
  expect(notes).toContain('grpo.loss-zero');
  expect(new Set(notes).size).toBe(notes.length);
});
