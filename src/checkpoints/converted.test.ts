import { mkdir, mkdtemp, readdir, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { converted } from './converted.js';
import { readFloats } from './safetensors.js';
import { sourceOfFloats, type TensorSource } from './safetensors-writer.js';

let root: string;
let origin: string;
const before = process.env['DUANZI_CACHE'];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'converted-'));
  process.env['DUANZI_CACHE'] = join(root, 'cache');
  origin = join(root, 'pytorch_model.bin');
  await writeFile(origin, 'first');
});
afterEach(async () => {
  if (before === undefined) delete process.env['DUANZI_CACHE'];
  else process.env['DUANZI_CACHE'] = before;
  await rm(root, { recursive: true });
});

const entries = (): Promise<string[]> => readdir(join(root, 'cache/converted'));
const values = [1, 2, 3];
function counted(): { sources: TensorSource[]; made: () => number } {
  let made = 0;
  const source = sourceOfFloats('x', { dtype: 'float32', shape: [3], data: Float32Array.from(values) });
  const bytes = (): ReturnType<TensorSource['bytes']> => {
    made++;
    return source.bytes();
  };
  return { sources: [{ ...source, bytes }], made: () => made };
}
const convert = async (sources: TensorSource[]): Promise<number[]> => [
  ...(await readFloats((await converted(sources, [origin], 'test')).get('x')!)).data,
];

it('converts once, and again when the origin has changed', async () => {
  const { sources, made } = counted();
  expect(await convert(sources)).toEqual(values);
  expect(await convert(sources)).toEqual(values);
  expect(made()).toBe(1);
  await writeFile(origin, 'other');
  expect(await convert(sources)).toEqual(values);
  expect(made()).toBe(2);
  expect(await entries()).toHaveLength(2);
});

it('serves several who convert the same at once', async () => {
  const all = await Promise.all(Array.from({ length: 8 }, () => convert(counted().sources)));
  expect(all).toEqual(Array.from({ length: 8 }, () => values));
  expect(await entries()).toHaveLength(1);
});

it('replaces an entry that was damaged', async () => {
  const { sources, made } = counted();
  await convert(sources);
  await truncate(join(root, 'cache/converted', (await entries())[0]!, 'model.safetensors'), 20);
  expect(await convert(sources)).toEqual(values);
  expect(made()).toBe(2);
});

it('leaves nothing behind where a source fails, and says so', async () => {
  const [source] = counted().sources;
  const broken: TensorSource = {
    ...source!,
    bytes: () => {
      throw new Error('the origin is gone');
    },
  };
  await expect(convert([broken])).rejects.toThrow('the origin is gone');
  expect(await entries()).toEqual([]);
});

it('does not begin what the disk has no room for', async () => {
  const huge: TensorSource = { ...counted().sources[0]!, shape: [2 ** 46] };
  await expect(convert([huge])).rejects.toMatchObject({
    code: 'file.disk',
    message: expect.stringMatching(/^Converting the weights, .*, needs 256 TiB; \S+ [GMK]iB are free\.$/) as string,
    exitCode: 3,
    fix: expect.stringContaining('DUANZI_CACHE') as string,
  });
  await expect(entries()).rejects.toThrow('ENOENT');
});

it('says which setting names another folder where this one cannot be written', async () => {
  await writeFile(join(root, 'cache'), 'a file');
  await expect(convert(counted().sources)).rejects.toMatchObject({
    exitCode: 2,
    where: join(root, 'cache/converted'),
    fix: expect.stringContaining('DUANZI_CACHE') as string,
  });
});

it('removes unfinished conversions that are a day old, and no others', async () => {
  const parent = join(root, 'cache/converted');
  const [old, young] = ['.a.tmp-1-00000000', '.b.tmp-1-00000000'].map((name) => join(parent, name)) as [string, string];
  for (const folder of [old, young]) await mkdir(folder, { recursive: true });
  const twoDaysAgo = Date.now() / 1000 - 48 * 3600;
  await utimes(old, twoDaysAgo, twoDaysAgo);
  await convert(counted().sources);
  await expect(stat(old)).rejects.toThrow();
  expect((await stat(young)).isDirectory()).toBe(true);
});
