import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { contentOf } from '../tests/support/folder-content.js';
import { miniRows, writeMiniData, writeMiniEncoder, writeMiniPolicy } from '../tests/support/mini-humor.js';
import { writeTinyClassifier } from '../tests/support/tiny-encoder.js';
import { loadConfig } from './config/load.js';
import { lockFolder } from './runs/lock.js';
import { runPipeline } from './pipeline.js';

// Whole runs are in tests/e2e/pipeline.test.ts.

const root = await mkdtemp(join(tmpdir(), 'duanzi-pipeline-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

beforeAll(async () => {
  const rows = miniRows(20);
  await writeMiniData(at('data'), rows);
  await writeMiniPolicy(at('policy'), rows);
  await writeMiniEncoder(at('encoder'), rows, 'masked');
  await writeTinyClassifier(at('three labels'), { changes: { labels: ['a', 'b', 'c'] } });
  await mkdir(at('jokes'));
  await writeFile(at('jokes/sft_train.csv'), await readFile(at('data/sft_train.csv')));
});

async function failure(out: string, flags: Record<string, unknown> = {}): Promise<unknown> {
  const inputs = { 'models.policy': at('policy'), 'models.reward': at('encoder'), 'data.dir': at('data') };
  const config = await loadConfig({ stage: 'run', flags: { ...inputs, out, ...flags } });
  return runPipeline(config, { onEvent: () => undefined }).catch((error: unknown) => error);
}

describe('the pipeline leaves alone', () => {
  it.each([
    ['a folder of something else', 'thesis.txt'],
    ['reports that no run of it left', 'report.md'],
    ['a stage folder that holds no run', 'grpo/notes.txt'],
  ])('%s', async (name, file) => {
    await mkdir(dirname(join(at(name), file)), { recursive: true });
    await writeFile(join(at(name), file), 'mine');
    const before = await contentOf(at(name));
    expect(await failure(at(name))).toMatchObject({ code: 'run.not-empty', where: at(name), exitCode: 2 });
    expect(await contentOf(at(name))).toEqual(before);
  });

  it('a file where its folder should be', async () => {
    await writeFile(at('file'), 'mine');
    expect(await failure(at('file'))).toMatchObject({ code: 'file.unwritable', where: at('file'), exitCode: 2 });
    expect(await readFile(at('file'), 'utf8')).toBe('mine');
  });
});

it('the pipeline tidies what it left when it was killed while it took the folder', async () => {
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  await mkdir(at('killed'));
  for (const name of ['.lock', 'report.md']) await writeFile(at(`killed/.${name}.tmp-${pid}-0123abcd`), 'half');
  const inputs = { 'models.policy': at('policy'), 'models.reward': at('encoder'), 'data.dir': at('data') };
  const config = await loadConfig({ stage: 'run', flags: { ...inputs, out: at('killed') } });
  const stopped = { onEvent: () => undefined, signal: AbortSignal.abort() };
  await expect(runPipeline(config, stopped)).rejects.toThrow('aborted');
  expect(await readdir(at('killed'))).toEqual([]);
});

it('the pipeline leaves alone a folder that another process writes to', async () => {
  const lock = lockFolder(at('taken'));
  const before = await contentOf(at('taken'));
  expect(await failure(at('taken'))).toMatchObject({ code: 'run.locked', where: at('taken'), exitCode: 2 });
  expect(await contentOf(at('taken'))).toEqual(before);
  lock.release();
});

describe('the pipeline refuses before its first stage begins', () => {
  it.each([
    ['rows that a later stage lacks', { 'data.dir': at('jokes') }, 'data.missing-file'],
    ['a test file that is not there', { 'rm.testFile': at('none.csv') }, 'data.missing-file'],
    ['a reward model of other labels', { 'models.reward': at('three labels') }, 'model.labels'],
    ['a policy that cannot write', { 'models.policy': at('encoder') }, 'model.not-causal'],
  ])('%s', async (_, flags, code) => {
    expect(await failure(at('out'), flags)).toMatchObject({ code, exitCode: 2 });
    expect(await contentOf(at('out'))).toBeUndefined();
  });
});
