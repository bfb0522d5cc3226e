import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { buildWordPiece } from './build-word-piece.js';
import { loadTokenizer } from './load-tokenizer.js';
import { recordMaxLength } from './max-length.js';
import { serializeTokenizer } from './tokenizer-files.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'duanzi-length-'));
});
afterEach(() => rm(dir, { recursive: true }));

const files = serializeTokenizer(buildWordPiece(['猫'], { vocabSize: 200 }));

it('records a length and leaves the rest of the config as it was', async () => {
  for (const [name, content] of Object.entries(files)) await writeFile(join(dir, name), content);
  await recordMaxLength(dir, 77);
  expect((await loadTokenizer(dir)).modelMaxLength).toBe(77);
  const config = JSON.parse(await readFile(join(dir, 'tokenizer_config.json'), 'utf8')) as object;
  expect(config).toEqual({ ...(JSON.parse(files['tokenizer_config.json']!) as object), model_max_length: 77 });
});

it('begins a config where there is none, with the special tokens of the older file', async () => {
  await writeFile(join(dir, 'vocab.txt'), files['vocab.txt']!.replace('[SEP]', '<end>'));
  await writeFile(join(dir, 'special_tokens_map.json'), '{"sep_token": "<end>"}');
  expect((await loadTokenizer(dir)).modelMaxLength).toBe(Infinity);
  await recordMaxLength(dir, 77);
  const { special, modelMaxLength } = await loadTokenizer(dir);
  expect([modelMaxLength, special.sep, special.cls]).toEqual([77, 3, 2]);
});

it('takes the enormous number of a tokenizer without a limit for none', async () => {
  for (const [name, content] of Object.entries(files)) await writeFile(join(dir, name), content);
  await recordMaxLength(dir, 1e30);
  expect((await loadTokenizer(dir)).modelMaxLength).toBe(Infinity);
});
