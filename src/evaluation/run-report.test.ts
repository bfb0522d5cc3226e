import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { writeManifest, type Manifest } from '../runs/manifest.js';
import { encodeMetrics } from '../runs/metrics.js';
import { readVersions } from '../runs/versions.js';
import { classificationMetrics } from './classification.js';
import { compareModels, type TextRecord } from './compare.js';
import { rewardModelEvaluation } from './reward-model/schema.js';
import { writeRunReport } from './run-report.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-report-'));
afterAll(() => rm(root, { recursive: true }));
let out: string;
let number = 0;
beforeEach(() => {
  out = join(root, `run-${number++}`);
});

/** A run folder of a stage, as far as a report reads it. */
async function writeRun(folder: string, stage: string, changes: Partial<Manifest> = {}): Promise<void> {
  await writeManifest(folder, {
    formatVersion: 1,
    stage,
    config: { model: 'models/some', out: folder, [stage]: { batchSize: 4, learningRate: 1e-5 } },
    seed: 7,
    threads: 2,
    device: 'cpu',
    versions: readVersions(),
    fingerprints: {},
    startedAt: '2026-01-01T00:00:00.000Z',
    resumedAt: [],
    microBatch: null,
    interventions: [],
    finishedAt: '2026-01-01T00:01:15.000Z',
    ...changes,
  });
  const lines = [3, 2, 1].map((loss, i) => encodeMetrics({ step: i + 1, epoch: i / 3, values: { loss } }));
  await writeFile(join(folder, 'metrics.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
}

const TEXTS: TextRecord[] = ['base', 'SFT', 'GRPO'].flatMap((model, m) =>
  Array.from({ length: 12 }, (_, i) => ({
    model,
    template: 'headline',
    prompt: `标题${i}`,
    sample: 0,
    completion: `${model} 的故事 ${i}`,
    tokens: 4,
    finishReason: 'stop' as const,
    reward: i + m,
  })),
);

async function writeEvaluation(folder: string): Promise<void> {
  await writeRun(folder, 'evaluate');
  const comparison = compareModels(TEXTS, { seed: 1, resamples: 100, training: [] });
  await writeFile(join(folder, 'evaluation.json'), JSON.stringify(comparison));
  await writeFile(
    join(folder, 'texts.jsonl'),
    TEXTS.map((text) => `${JSON.stringify({ step: 0, ...text })}\n`).join(''),
  );
}

const read = async (): Promise<{ page: string; markdown: string }> => ({
  page: (await readFile(join(out, 'report.html'), 'utf8')).replace(/\s+/g, ' '),
  markdown: await readFile(join(out, 'report.md'), 'utf8'),
});

describe('the report of one stage', () => {
  it('has its name, curves, settings and time', async () => {
    await writeRun(out, 'sft');
    expect(await writeRunReport(out)).toBe(join(out, 'report.html'));
    const { page, markdown } = await read();
    expect(page).toContain('<h1>duanzi sft</h1>');
    expect(page).toContain('Took 1 min 15 s');
    expect(page).toContain('sft.learningRate');
    expect(page.match(/<svg /g)).toHaveLength(1);
    expect(markdown).toContain('duanzi sft');
    expect(markdown).toContain('sft.batchSize');
  });

  it('does not count the time for which a resumed run lay still', async () => {
    await writeRun(out, 'sft', { resumedAt: ['2026-01-01T00:01:00.000Z'] });
    await writeRunReport(out);
    expect((await read()).page).not.toContain('Took');
  });

  it.each([
    ['assets/nano-qwen3', true],
    ['models/Qwen3-1.7B', false],
  ])('with %s says what to expect of a nano model: %s', async (model, said) => {
    await writeRun(out, 'sft', { config: { model } });
    await writeRunReport(out);
    for (const text of Object.values(await read())) expect(text.includes('it does not write good jokes')).toBe(said);
  });

  it('takes the place of an older one', async () => {
    await writeRun(out, 'sft');
    await writeRunReport(out);
    await writeFile(join(out, 'metrics.jsonl'), '');
    await writeRunReport(out);
    expect((await read()).page).not.toContain('<svg');
    expect((await readdir(out)).sort()).toEqual(['manifest.json', 'metrics.jsonl', 'report.html', 'report.md']);
  });
});

describe('the report of a pipeline', () => {
  it('has every stage, the reward before and after, and texts side by side', async () => {
    for (const stage of ['sft', 'rm', 'grpo']) await writeRun(join(out, stage), stage);
    await writeEvaluation(join(out, 'evaluation'));
    await writeRunReport(out);
    const { page, markdown } = await read();
    expect(page).toContain('<h1>duanzi: from CSV to jokes</h1>');
    const order = ['sft', 'rm', 'grpo'].map((stage) => page.indexOf(`>${stage}<`));
    expect(order.every((at) => at > 0)).toBe(true);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    for (const shown of ['base 的故事 0', 'SFT 的故事 0', 'GRPO 的故事 7']) {
      expect(page).toContain(shown);
      expect(markdown).toContain(shown);
    }
    // Only the first prompts are shown.
    expect(markdown).not.toContain('GRPO 的故事 8');
    // Every prompt gained exactly 1 between SFT and GRPO.
    expect(page).toContain('from 6.500 to 7.500: +1, 95 % bootstrap interval [1, 1]');
  });

  it("shows the reward model's figures", async () => {
    await writeRun(join(out, 'rm'), 'rm');
    const metrics = classificationMetrics([1, 0, 1, 0], [0.9, 0.2, 0.7, 0.6]);
    const evaluation = rewardModelEvaluation.parse({
      formatVersion: 1,
      step: 3,
      validation: { rows: 4, metrics, templates: { headline: metrics } },
      baselines: [{ name: 'length', description: 'Length alone.', features: 1, converged: true, metrics }],
      added: null,
      test: null,
    });
    await writeFile(join(out, 'rm/evaluation.json'), JSON.stringify(evaluation));
    await writeRunReport(out);
    const { page, markdown } = await read();
    expect(page).toContain('Confusion matrix');
    for (const text of [page, markdown]) expect(text).toContain('length');
  });

  it('shows the stages that there are, while others are still to come', async () => {
    await writeRun(join(out, 'sft'), 'sft');
    await writeRun(join(out, 'rm'), 'rm', { finishedAt: null });
    await writeRunReport(out);
    const { page } = await read();
    expect(page).not.toContain('>grpo<');
    expect(page.match(/Took 1 min 15 s/g)).toHaveLength(1);
  });
});

it('of an evaluation alone compares what is in it', async () => {
  await writeEvaluation(out);
  await writeRunReport(out);
  const { page } = await read();
  expect(page).toContain('<h1>duanzi evaluate</h1>');
  expect(page).toContain('GRPO 的故事 0');
});

describe('refuses', () => {
  it('a folder without a run, and writes nothing into it', async () => {
    await mkdir(out);
    await expect(writeRunReport(out)).rejects.toMatchObject({ code: 'report.no-run', where: out, exitCode: 2 });
    await expect(writeRunReport(join(out, 'none'))).rejects.toThrow(UserError);
    expect(await readdir(out)).toEqual([]);
  });

  it.each([
    ['evaluation/evaluation.json', '{"prompts":'],
    ['evaluation/evaluation.json', '{}'],
    ['evaluation/texts.jsonl', '{"model":1}\n'],
    ['sft/metrics.jsonl', 'nonsense\n'],
  ])('a damaged %s (%s), by its name', async (file, content) => {
    await writeRun(join(out, 'sft'), 'sft');
    await writeEvaluation(join(out, 'evaluation'));
    await writeFile(join(out, file), content);
    const thrown: unknown = await writeRunReport(out).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(UserError);
    expect((thrown as UserError).where).toContain(join(out, file));
    await expect(readFile(join(out, 'report.html'))).rejects.toThrow('ENOENT');
  });
});
