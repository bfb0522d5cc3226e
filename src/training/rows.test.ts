import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { dataSection } from '../config/data.js';
import { completionOf, headlineOf } from '../data/row.js';
import { loadRows } from './rows.js';

const dir = await mkdtemp(join(tmpdir(), 'duanzi-rows-'));
afterAll(() => rm(dir, { recursive: true }));

async function write(name: string, rows: readonly string[]): Promise<string> {
  const file = join(dir, name);
  await writeFile(file, ['headline,word1,word2,joke,label', ...rows].join('\n'));
  return file;
}

const rows = Array.from({ length: 20 }, (_, i) => `标题${i},甲,乙,笑话${i},${i % 2}`);

it('learns from no row that shares its headline or text with a row of the test file', async () => {
  const testFile = await write('mine.csv', ['标题3,丙,丁,新的,1', '新标题,丙,丁,笑话7,0']);
  const leaking = (row: { fields: Readonly<Record<string, string>> }): boolean =>
    row.fields['headline'] === '标题3' || row.fields['joke'] === '笑话7';
  await write('rm_train.csv', rows);
  await write('rm_test.csv', ['标题9,丙,丁,另外,1']);
  for (const source of [{ file: join(dir, 'rm_train.csv') }, { dir }]) {
    const data = dataSection.parse({ ...source, validationFraction: 0.2 });
    const before = await loadRows(data, ['rm_train'], 'required');
    const after = await loadRows(data, ['rm_train'], 'required', { testFile });
    expect(after.test.map(headlineOf)).toEqual(['标题3', '新标题']);
    expect(after.train.filter(leaking)).toEqual([]);
    expect(after.validation).toEqual(before.validation);
    expect(Object.keys(after.fingerprints)).toContain('rm_test');
  }
});

it('learns from no row whose text is held out under another headline, in a single file too', async () => {
  const twins = rows.map((row) => row.replace('标题', '别的标题'));
  const file = await write('twins.csv', [...rows, ...twins]);
  const { train, validation } = await loadRows(dataSection.parse({ file, validationFraction: 0.3 }), [], 'required');
  expect(validation.length).toBeGreaterThan(0);
  const heldOut = new Set(validation.map(completionOf));
  expect(train.filter((row) => heldOut.has(completionOf(row)))).toEqual([]);
});
