import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { fuzz } from './fuzz.js';
import { makeReaders } from './readers.js';

const folder = await mkdtemp(join(tmpdir(), 'duanzi-fuzz-'));
const readers = await makeReaders(folder);
afterAll(() => rm(folder, { recursive: true, force: true }));

// With 10,000 inputs each, and a limit on memory: `npm run test:fuzz`.
it.each(readers)('the reader of $name takes a damaged file or refuses it by name', async (reader) => {
  const { findings, refused } = await fuzz(reader, { count: 60, seed: 2 });
  expect(findings).toEqual([]);
  expect(refused).toBeGreaterThan(10);
});

it.each([{ name: 'pickle', seed: 1, input: 280 }])('$name refuses what it once stumbled over', async (found) => {
  const reader = readers.find(({ name }) => name === found.name)!;
  expect((await fuzz(reader, { from: found.input, count: 1, seed: found.seed })).findings).toEqual([]);
});
