import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { writeTinyClassifier } from '../support/tiny-encoder.js';
import { writeTinyModel } from '../support/tiny-model.js';
import { spawnCli, type Finished } from './spawn-cli.js';

const positive = z.number().positive();
const spread = z.object({ median: positive, min: positive, max: positive });
const findings = z.object({
  machine: z.looseObject({ cpu: z.string(), cores: positive }),
  threads: positive,
  ceiling: positive,
  rows: z.array(
    z.looseObject({
      work: z.string(),
      ours: positive,
      unit: z.string(),
      rates: z.record(z.string(), spread),
      secondsPerStep: spread,
      cpuSecondsPerStep: spread.optional(),
      share: spread.optional(),
      steps: z.literal(1),
      peakRss: positive.optional(),
    }),
  ),
});

let folder: string;
const at = (name: string): string => join(folder, name);

const bench = async (...args: string[]): Promise<Finished> =>
  spawnCli(args, { script: fileURLToPath(new URL('../../bench/main.ts', import.meta.url)) });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bench-test-'));
  await mkdir(at('scratch'));
  vi.stubEnv('TMPDIR', at('scratch'));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

describe('the benchmark', () => {
  it('draws how time and memory grow, and measures only what a folder lacks', async () => {
    const first = await bench('--growth', at('growth'), '--quick', '--threads', '1');
    expect(first.code).toBe(0);
    expect(first.stderr.match(/^measuring \w+/gm)).toEqual(
      ['length', 'length', 'group', 'layers', 'steps'].map((axis) => `measuring ${axis}`),
    );
    const file = join(at('growth'), 'growth.json');
    const point = z.object({ axis: z.string(), value: positive, seconds: positive, bytes: positive });
    const { points } = z.object({ points: z.array(point) }).parse(JSON.parse(await readFile(file, 'utf8')));
    expect(points.map(({ axis, value }) => [axis, value])).toEqual([
      ['length', 8],
      ['length', 16],
      ['group', 2],
      ['layers', 1],
      ['steps', 1],
      ['steps', 3],
    ]);
    const image = await readFile(join(at('growth'), 'growth.svg'), 'utf8');
    expect(image.match(/<svg [^>]*aria-label/g)).toHaveLength(8);
    await writeFile(file, JSON.stringify({ what: [], points: points.filter(({ value }) => value !== 16) }));
    const second = await bench('--growth', at('growth'), '--quick', '--threads', '1');
    expect(second.stderr).toBe('measuring length 16 …\n');
    await writeFile(file, '{}');
    const refused = await bench('--growth', at('growth'), '--quick');
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('growth.json');
  });

  it('measures every work on models of its own, and leaves nothing behind', async () => {
    const { code, stdout, stderr } = await bench('--quick', '--steps', '1', '--threads', '1', '--json', at('all.json'));
    expect(stderr.split('\n').filter((line) => line !== '' && !/^(writing|measuring) /.test(line))).toEqual([]);
    expect(code).toBe(0);
    const { rows, threads } = findings.parse(JSON.parse(await readFile(at('all.json'), 'utf8')));
    expect(threads).toBe(1);
    expect(rows.map(({ work, unit }) => [work, unit])).toEqual([
      ['sft', 'supervised tokens/s'],
      ['sft-float32', 'supervised tokens/s'],
      ['rm', 'samples/s'],
      ['rm-int8', 'samples/s'],
      ['rm-recompute', 'samples/s'],
      ['generate-1', 'tokens/s'],
      ['generate-64', 'tokens/s'],
      ['help', 'ms'],
      ['load', 'ms'],
    ]);
    for (const { work, ours, unit, rates, share, cpuSecondsPerStep, peakRss } of rows) {
      expect(stdout).toContain(`\n${work} `);
      expect(ours).toBe(rates[unit]!.median);
      const computes = unit !== 'ms';
      expect([share, cpuSecondsPerStep, peakRss].every((each) => (each !== undefined) === computes)).toBe(true);
    }
    expect(stdout).toMatch(/matmul ceiling, float32: .* GFLOP\/s/);
    expect((await readdir(at('scratch'))).filter((name) => name.startsWith('duanzi'))).toEqual([]);
  });

  it('takes given models and rows', async () => {
    await mkdir(at('model'));
    await writeTinyModel(at('model'));
    await writeTinyClassifier(at('rm'));
    await writeFile(
      at('rows.csv'),
      'headline,word1,word2,joke,label\n猫排队,猫,包子,猫说今天天气真好。,1\n会议,雨伞,键盘,会议今天开了。,0\n',
    );
    const given = ['--model', at('model'), '--rm', at('rm'), '--csv', at('rows.csv')];
    const { code, stderr } = await bench(
      ...given,
      '--quick',
      '--only',
      'rm,sft,grpo',
      '--quantization',
      'float32',
      '--steps',
      '1',
      '--json',
      at('rows.json'),
    );
    expect(stderr).not.toContain('writing');
    expect(code).toBe(0);
    const { rows } = findings.parse(JSON.parse(await readFile(at('rows.json'), 'utf8')));
    expect(rows.map(({ work }) => work)).toEqual(['rm', 'rm-int8', 'rm-recompute', 'sft', 'grpo', 'grpo-rollout']);
  });

  it.each([
    ['an unknown option', ['--fast'], 'Unknown option'],
    ['an unknown work', ['--only', 'sft,rollouts'], '--only'],
    ['rows without a tokenizer', ['--csv', 'rows.csv'], '--csv needs models with tokenizers'],
    ['rollouts without rows', ['--only', 'grpo'], 'Grpo needs --model, --rm and --csv'],
    ['a peer without rows', ['--peer', 'python3'], '--peer needs --model, --rm and --csv'],
    ['training in 4 bits', ['--only', 'sft', '--quantization', 'int4'], '--only generate,grpo'],
    ['no steps', ['--steps', '0'], '--steps'],
    ['a place that cannot be written', ['--json', '/nowhere/at/all.json'], '/nowhere/at/all.json'],
  ])('refuses %s before it measures', async (_, args, message) => {
    const { code, stdout, stderr } = await bench(...args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain(message);
  });

  it('hands on what a work found wrong with its input', async () => {
    const { code, stderr } = await bench('--quick', '--only', 'sft', '--model', at('missing'));
    expect(code).toBe(2);
    expect(stderr).toContain(at('missing'));
    expect(stderr).toContain('Fix:');
  });
});
