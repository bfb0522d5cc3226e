import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it, vi } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import { ALARMS_FILE, readAlarms } from '../../src/evaluation/alarms.js';
import type { StageEvent } from '../../src/runs/events.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { grpo } from '../../src/stages/grpo.js';
import { MINI_HUMOR } from '../support/mini-humor.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-gaming-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

/** The shipped nano model with a reward of one line. */
async function run(name: string, score: string, flags: Record<string, unknown> = {}): Promise<StageEvent[]> {
  await writeFile(at(`${name}.ts`), `export default (rows: any[]) => rows.map(({ completion }) => ${score});\n`);
  const events: StageEvent[] = [];
  const config = await loadConfig({
    stage: 'grpo',
    flags: {
      model: fileURLToPath(new URL('../../assets/nano-qwen3', import.meta.url)),
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
vi.setConfig({ testTimeout: 600_000 });

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
  // Of the characters that a text has, how many are one of the hundred commonest: a property of what is written, not of how much.
  const events = await run(
    'honest',
    "completion === '' ? null : [...completion].filter((c) => '的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从'.includes(c)).length / [...completion].length",
  );
  expect(warnings(events)).toEqual([]);
  await expect(readFile(at(`honest/${ALARMS_FILE}`))).rejects.toThrow('ENOENT');
  const rewards = readMetrics(at('honest/metrics.jsonl')).flatMap(({ values }) => values['reward'] ?? []);
  const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  expect(mean(rewards.slice(-5))).toBeGreaterThan(mean(rewards.slice(0, 5)));
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
