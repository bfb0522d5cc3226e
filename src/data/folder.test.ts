import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkData } from './check.js';
import { loadDataFolder, splitFolder } from './folder.js';
import { completionOf } from './row.js';
import { DEFAULT_TEMPLATES } from './templates.js';

const SPLIT = { seed: 0, validationFraction: 0.3 };

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'duanzi-folder-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

const write = (name: string, lines: string[]): Promise<void> => writeFile(join(dir, name), `${lines.join('\n')}\n`);

async function writeAll(): Promise<void> {
  const jokes = Array.from({ length: 40 }, (_, i) => `标题${i},猫,狗,猫见了狗${i}`);
  await write('sft_train.csv', ['headline,word1,word2,joke', ...jokes, '另一个标题,猫,狗,猫见了狗0']);
  await write('rm_train.csv', [
    'headline,word1,word2,joke,label',
    ...jokes.map((joke) => `${joke},1`),
    ...Array.from({ length: 20 }, (_, i) => `${i === 0 ? '标题1' : `新闻${i}`},鱼,鸟,今天下雨${i},0`),
  ]);
  await write('rm_test.jsonl', ['{"headline":"标题7","word1":"","word2":"","joke":"没见过","label":1}']);
}

describe('a data folder', () => {
  it('is read with the files that are there and their fingerprints', async () => {
    const csv = 'headline,joke\n猫,好笑\n';
    await writeFile(join(dir, 'sft_train.csv'), csv);
    const { files } = await loadDataFolder(dir, { need: ['sft_train'] });
    expect(Object.keys(files)).toEqual(['sft_train']);
    expect(files.sft_train?.fingerprint).toEqual({
      bytes: Buffer.byteLength(csv),
      sha256: createHash('sha256').update(csv).digest('hex'),
    });
  });

  it('is refused when something needed is missing, or there twice', async () => {
    await expect(loadDataFolder(join(dir, 'none'))).rejects.toMatchObject({ code: 'data.missing-folder' });
    await expect(loadDataFolder(dir)).rejects.toMatchObject({ code: 'data.missing-file' });
    await write('sft_train.csv', ['joke', '好笑']);
    await expect(loadDataFolder(dir, { need: ['rm_train'] })).rejects.toMatchObject({ code: 'data.missing-file' });
    await write('sft_train.jsonl', ['{"joke":"好笑"}']);
    await expect(loadDataFolder(dir)).rejects.toMatchObject({ code: 'data.ambiguous-file' });
  });

  it('needs labels in the files of the reward model', async () => {
    await write('rm_train.csv', ['joke', '好笑']);
    await expect(loadDataFolder(dir)).rejects.toMatchObject({ code: 'data.missing-column' });
  });

  it('is split so that no joke of one file validates what another trains on', async () => {
    await writeAll();
    const { files, test } = splitFolder(await loadDataFolder(dir), SPLIT);
    const sides = Object.values(files);
    const heldOut = new Set([...sides.flatMap(({ validation }) => validation), ...test].map(completionOf));
    const trained = sides.flatMap(({ train }) => train);
    expect(trained.length).toBeGreaterThan(20);
    expect(trained.filter((row) => heldOut.has(completionOf(row)))).toEqual([]);
    expect(trained.some(({ fields }) => fields['headline'] === '标题7')).toBe(false);
    const jokes = (rows: readonly { fields: Readonly<Record<string, string>>; label?: 0 | 1 }[] | undefined) =>
      new Set(rows?.filter(({ label }) => label !== 0).map(({ fields }) => fields['joke']));
    expect(jokes(files.rm_train?.validation)).toEqual(jokes(files.sft_train?.validation));
  });
});

describe('checkData', () => {
  it('counts what is there', async () => {
    await writeAll();
    const folder = await loadDataFolder(dir);
    const summary = checkData(folder, DEFAULT_TEMPLATES, SPLIT);
    const split = splitFolder(folder, SPLIT);
    const [sft, rmTrain, rmTest] = summary.files;
    expect(sft).toMatchObject({
      name: 'sft_train',
      rows: 41,
      prompts: 82,
      headlines: 41,
      duplicates: { completion: 1, headline: 0, both: 0 },
      length: { min: 5, median: 6, max: 6 },
      labels: undefined,
      wordsNotInCompletion: { rows: 0, examples: [] },
      split: {
        train: split.files.sft_train?.train.length,
        validation: split.files.sft_train?.validation.length,
        dropped: split.files.sft_train?.dropped.length,
      },
    });
    expect(sft?.length.mean).toBeCloseTo((11 * 5 + 30 * 6) / 41, 12);
    expect(rmTrain?.labels).toMatchObject({ positive: 40, negative: 20, positiveShare: 40 / 60, sharedHeadlines: 1 });
    expect(rmTrain?.labels?.negativeLength).toMatchObject({ min: 5, max: 6, p95: 6 });
    expect(rmTrain?.wordsNotInCompletion.rows).toBe(20);
    expect(rmTrain?.wordsNotInCompletion.examples).toHaveLength(5);
    expect(rmTrain?.wordsNotInCompletion.examples[0]).toBe(`${join(dir, 'rm_train.csv')}:42`);
    expect(rmTest).toMatchObject({ rows: 1, prompts: 1, split: undefined });
    expect(summary).toMatchObject({ positivesSharedWithSft: 40, testRowsSeenInTraining: 1 });
  });

  it('refuses a template that does not fit, and a split that leaves nothing', async () => {
    await write('sft_train.csv', ['headline,joke', '猫,好笑']);
    const folder = await loadDataFolder(dir);
    expect(() => checkData(folder, DEFAULT_TEMPLATES, SPLIT)).toThrow(/word1/u);
    expect(() => checkData(folder, { a: '{headline}' }, { seed: 0, validationFraction: 1 })).toThrow(
      /no row to train/u,
    );
  });
});
