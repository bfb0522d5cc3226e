import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { LOCK_FILE, lockFolder } from '../../src/runs/lock.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { contentOf } from '../support/folder-content.js';
import { miniRows, writeMiniData, writeMiniEncoder, writeMiniPolicy } from '../support/mini-humor.js';
import { spawnCli, type Finished, type SpawnOptions } from './spawn-cli.js';

const RECIPE = `
models: { policy: policy, reward: encoder }
threads: 1
data:
  dir: data
  validationFraction: 0.3
  templates: { headline: "标题：{headline}\\n", words: "词语：{word1}、{word2}\\n" }
lora: { r: 2 }
sft: { maxSteps: 2, batchSize: 2, loggingSteps: 1, samples: 1, sampling: { maxNewTokens: 4 } }
rm: { maxSteps: 30, batchSize: 2, evalSteps: 10, saveSteps: 10 }
grpo: { maxSteps: 2, completionsPerRollout: 4, batchSize: 2, maxCompletionLength: 6, loggingSteps: 1, evalPrompts: 2, warmupSteps: 0 }
generate: { maxNewTokens: 6 }
evaluate: { prompts: 4, seeds: 1, bootstrapSamples: 100 }
`;
const STAGES = ['sft', 'rm', 'grpo', 'evaluation'];

const cwd = await mkdtemp(join(tmpdir(), 'duanzi-pipeline-'));
const at = (name: string): string => join(cwd, name);
afterAll(() => rm(cwd, { recursive: true }));

beforeAll(async () => {
  const rows = miniRows(40);
  await writeMiniData(at('data'), rows);
  await writeMiniPolicy(at('policy'), rows);
  await writeMiniEncoder(at('encoder'), rows, 'masked');
  await writeFile(at('recipe.yaml'), RECIPE);
});

const run = (out: string, options: SpawnOptions = {}): Promise<Finished> =>
  spawnCli(['run', 'recipe.yaml', '--out', out], { cwd, ...options });

describe('duanzi run', () => {
  it('stops at Ctrl-C and leaves what it has', async () => {
    let sent = false;
    const { code, stderr } = await run('out', {
      onStderr: (all, kill) => {
        if (sent || !/^rm\b.*\d+\/30/m.test(all)) return;
        sent = true;
        kill('SIGINT');
      },
    });
    expect(stderr).toMatch(/Interrupted/);
    expect(code).toBe(130);
    await expect(readFile(at('out/report.md'))).rejects.toThrow('ENOENT');
  });

  it('goes on from there to the end', async () => {
    const sft = await contentOf(at('out/sft'));
    const { code, stdout, stderr } = await run('out');
    expect(stderr).not.toMatch(/Error|run\.starts-over/);
    expect({ code, stdout }).toEqual({ code: 0, stdout: `${at('out')}\n` });
    expect(await contentOf(at('out/sft'))).toEqual(sft);
    for (const stage of STAGES) {
      const manifest: unknown = JSON.parse(await readFile(at(`out/${stage}/manifest.json`), 'utf8'));
      expect(manifest, stage).toMatchObject({ finishedAt: expect.any(String) as unknown, threads: 1, seed: 1 });
    }
    for (const [stage, file] of [
      ['sft', 'adapter/adapter_model.safetensors'],
      ['rm', 'model/model.safetensors'],
      ['grpo', 'adapter/adapter_model.safetensors'],
      ['grpo', 'policy/merge.json'],
      ['grpo', 'rollouts.jsonl'],
    ] as const) {
      expect((await readFile(at(`out/${stage}/${file}`))).length, `${stage}/${file}`).toBeGreaterThan(0);
    }
    const lastStep = (stage: string): number => readMetrics(at(`out/${stage}/metrics.jsonl`)).at(-1)!.step;
    expect(STAGES.slice(0, 3).map(lastStep)).toEqual([2, 30, 2]);
  });

  it('lets the three models write to the same unseen prompts', async () => {
    const lines = (await readFile(at('out/evaluation/texts.jsonl'), 'utf8')).trim().split('\n');
    const record = z.object({ model: z.string(), prompt: z.string(), completion: z.string(), reward: z.number() });
    const texts = lines.map((line) => record.parse(JSON.parse(line)));
    const promptsOf = (model: string): string[] =>
      texts.filter((text) => text.model === model).map(({ prompt }) => prompt);
    expect(promptsOf('base')).toHaveLength(4);
    for (const model of ['SFT', 'GRPO']) expect(promptsOf(model)).toEqual(promptsOf('base'));
    const rollouts = await readFile(at('out/grpo/rollouts.jsonl'), 'utf8');
    for (const { prompt } of texts) expect(rollouts).not.toContain(JSON.stringify(prompt));
  });

  it('leaves a report that stands alone', async () => {
    const page = await readFile(at('out/report.html'), 'utf8');
    expect(page).toContain('<svg');
    expect(page).not.toMatch(/<script|<link|<img|<iframe|@import|https?:|src=|url\((?!#)/i);
    const markdown = await readFile(at('out/report.md'), 'utf8');
    for (const part of ['sft', 'rm', 'grpo', 'base', 'SFT', 'GRPO']) {
      expect(page).toContain(part);
      expect(markdown).toContain(part);
    }
  });

  it('repeats nothing that is finished, and says so', async () => {
    const contents = (): Promise<unknown> => Promise.all(STAGES.map((stage) => contentOf(at(`out/${stage}`))));
    const before = await contents();
    await leaveLock(at('out/rm'));
    const { code, stderr } = await run('out');
    expect(code).toBe(0);
    expect(stderr.match(/is finished and is not repeated/g)).toHaveLength(STAGES.length);
    expect(await contents()).toEqual(before);
  });
});

/** What a process leaves that dies between finishing a stage and freeing its folder. */
async function leaveLock(folder: string): Promise<void> {
  const lock = lockFolder(folder);
  const holder = JSON.parse(await readFile(join(folder, LOCK_FILE), 'utf8')) as object;
  lock.release();
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  await writeFile(join(folder, LOCK_FILE), JSON.stringify({ ...holder, pid }));
}

it('duanzi run refuses a folder of something else, and touches nothing', async () => {
  await mkdir(at('foreign'));
  await writeFile(at('foreign/thesis.txt'), 'mine');
  const before = await contentOf(at('foreign'));
  const { code, stderr } = await run('foreign');
  expect(stderr).toMatch(/^Error: The output folder holds something that is not of a run: thesis\.txt/m);
  expect(stderr).not.toMatch(/^\s+at /m);
  expect(code).toBe(2);
  expect(await contentOf(at('foreign'))).toEqual(before);
});
