import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { writeTinyClassifier } from '../support/tiny-encoder.js';
import { writeTinyModel } from '../support/tiny-model.js';
import { type Finished, spawnCli, type SpawnOptions } from './spawn-cli.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-interrupt-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

beforeAll(async () => {
  for (const name of ['policy', 'judge']) await mkdir(at(name));
  await writeTinyModel(at('policy'));
  await writeTinyClassifier(at('judge'));
  const rows = Array.from({ length: 12 }, (_, i) => `猫排队${i},雨伞,键盘,雨伞遇见键盘${'哈'.repeat(i % 5)}`);
  await writeFile(at('rows.csv'), ['headline,word1,word2,joke', ...rows].join('\n'));
});

/** Milliseconds after a log line at which the next rollout, of hundreds, has begun. */
const WITHIN = 60;

const grpo = (out: string, argv: readonly string[], options: SpawnOptions = {}): Promise<Finished> => {
  const settings = {
    numGenerations: 2,
    completionsPerRollout: 4,
    batchSize: 4,
    maxCompletionLength: 80,
    evalPrompts: 0,
    maxSteps: 3,
    loggingSteps: 1,
    learningRate: 0.01,
    warmupSteps: 0,
  };
  const sets = Object.entries(settings).flatMap(([key, value]) => ['--set', `grpo.${key}=${value}`]);
  const templates = ['headline=标题：{headline}', 'words=词语：{word1}、{word2}'];
  sets.push(...templates.flatMap((template) => ['--set', `data.templates.${template}`]));
  const paths = ['--model', at('policy'), '--rm', at('judge'), '--set', `data.file=${at('rows.csv')}`];
  return spawnCli(['grpo', ...paths, ...sets, '--threads', '1', '--out', at(out), '--json', ...argv], options);
};

it('Ctrl-C in a rollout ends it with 130; the run that goes on ends with the bits of one left alone', async () => {
  const whole = await grpo('whole', []);
  expect(whole.code, whole.stderr).toBe(0);

  let sent = false;
  const stopped = await grpo('stopped', [], {
    onStdout: (all, kill) => {
      if (sent || !all.includes('"type":"metrics"')) return;
      sent = true;
      setTimeout(() => {
        kill('SIGINT');
      }, WITHIN);
    },
  });
  expect(stopped.code, stopped.stderr).toBe(130);
  expect(stopped.stderr).toContain('Stopping as soon as all is saved');
  // The rollout of step 2 was given up, and nothing of it stands.
  expect(await readdir(at('stopped/checkpoints'))).toEqual(['step-1']);
  const steps = (await readFile(at('stopped/rollouts.jsonl'), 'utf8')).trim().split('\n');
  expect(steps.map((line) => (JSON.parse(line) as { step: number }).step)).toEqual([1, 1, 1, 1]);

  const resumed = await grpo('stopped', ['--resume']);
  expect(resumed.code, resumed.stderr).toBe(0);
  for (const name of ['adapter/adapter_model.safetensors', 'metrics.jsonl', 'rollouts.jsonl']) {
    expect(await readFile(at(`stopped/${name}`)), name).toEqual(await readFile(at(`whole/${name}`)));
  }
});
