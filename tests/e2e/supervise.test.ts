import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { supervise } from '../../src/cli/supervise.js';
import { readManifest } from '../../src/runs/manifest.js';
import { memoryKills } from '../../src/runs/process-identity.js';
import { spawnCli } from './spawn-cli.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-supervise-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

const DYING = fileURLToPath(new URL('./dying-cli.ts', import.meta.url));
const argv = (out: string, most: number, seed = 1): string[] => [
  ...['sft', '--model', 'any', '--set', 'data.dir=any', '--quiet'],
  ...['--out', at(out), '--threads', String(most), '--seed', String(seed)],
];

/** Watches over a run that is killed, while the system counts a process more each time it is asked. */
function watch(out: string, most: number): Promise<void> {
  let kills = memoryKills()!;
  const supervision = {
    script: DYING,
    argv: argv(out, most),
    execArgv: ['--import', import.meta.resolve('tsx')],
    memoryKills: () => kills++,
  };
  return supervise(supervision, at(out), new AbortController().signal);
}

it('a run that the system kills for want of memory goes on by itself with half as many samples at once', async () => {
  await watch('twice', 4);
  const { microBatch, interventions, resumedAt, finishedAt } = (await readManifest(at('twice')))!;
  expect(microBatch).toBe(2);
  expect(resumedAt).toHaveLength(2);
  expect(finishedAt).not.toBeNull();
  const told = interventions.map(({ code, message }) => `${code}: ${message}`);
  expect(told).toHaveLength(2);
  expect(told[1]).toMatch(/^memory\.smaller-batches: .*with 4 samples at once.* with 2, accumulated/);
});

it('and is given up as a fault of the machine where one sample at once is killed too', async () => {
  await expect(watch('ever', 1)).rejects.toMatchObject({ code: 'machine.memory', exitCode: 3, where: at('ever') });
  expect(await readManifest(at('ever'))).toMatchObject({ microBatch: 1, finishedAt: null });
});

it('a run that something else kills ends as it was killed, and is not started again', async () => {
  const { code, stderr } = await spawnCli(argv('killed', 1, 1000), { script: DYING });
  expect(code, stderr).toBe(128 + 9);
  expect(await readManifest(at('killed'))).toMatchObject({ microBatch: null, resumedAt: [], finishedAt: null });
});
