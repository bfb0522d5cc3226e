import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import { parseModelConfig } from '../models/config/model-config.js';
import { fingerprint, tokenizerFingerprint, weightsFingerprint } from './fingerprint.js';
import { loadTensors, openModelFolder } from './model-folder.js';
import { sourceOfArray, sourceOfFloats, writeSafetensors } from './safetensors-writer.js';
import { writeModelFolder } from './write-model-folder.js';

let root: string;
let dir: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'model-folder-'));
});
beforeEach(async () => {
  dir = await mkdtemp(join(root, 'model-'));
});
afterAll(() => rm(root, { recursive: true }));

const matrix = (shape: number[], value = 0.5): Tensor<'float32'> => ({
  dtype: 'float32',
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
});
const json = (name: string, value: unknown): Promise<void> => writeFile(join(dir, name), JSON.stringify(value));
const refusal = async (opening: Promise<unknown>): Promise<UserError> => {
  const error: unknown = await opening.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
};
const shard = (name: string, tensors: readonly string[]): Promise<void> =>
  writeSafetensors(
    join(dir, name),
    tensors.map((tensor) => sourceOfFloats(tensor, matrix([2]))),
  );

describe('EOS ids', () => {
  it('are those of both configs, once each', async () => {
    await json('config.json', { model_type: 'qwen3', eos_token_id: 5 });
    await json('generation_config.json', { eos_token_id: [7, 5] });
    await shard('model.safetensors', ['a']);
    expect((await openModelFolder(dir)).eosTokenIds).toEqual([5, 7]);
  });

  it('may be missing', async () => {
    await json('config.json', { model_type: 'qwen3' });
    await shard('model.safetensors', ['a']);
    expect(await openModelFolder(dir)).toMatchObject({ eosTokenIds: [], generationConfig: undefined });
  });
});

describe('a folder that is no model is refused by name', () => {
  it('a missing folder, a file', async () => {
    expect(await refusal(openModelFolder(join(dir, 'absent')))).toMatchObject({ code: 'model.no-folder' });
    await json('file', {});
    expect(await refusal(openModelFolder(join(dir, 'file')))).toMatchObject({
      message: expect.stringContaining('a file') as string,
    });
  });

  it('no config, an adapter, no weights, weights of another format', async () => {
    expect(await refusal(openModelFolder(dir))).toMatchObject({ code: 'model.no-config' });
    await json('adapter_config.json', {});
    expect((await refusal(openModelFolder(dir))).message).toMatch(/an adapter, not a model/);
    await json('config.json', { model_type: 'qwen3' });
    expect(await refusal(openModelFolder(dir))).toMatchObject({ code: 'model.no-weights' });
    await writeFile(join(dir, 'model.gguf'), '');
    expect((await refusal(openModelFolder(dir))).message).toMatch(/model\.gguf/);
  });

  it('a config that is not JSON, or not an object', async () => {
    await writeFile(join(dir, 'config.json'), '{"model_type": qwen3}');
    expect(await refusal(openModelFolder(dir))).toMatchObject({
      code: 'checkpoint.invalid-json',
      where: join(dir, 'config.json'),
    });
    await json('config.json', [1]);
    expect((await refusal(openModelFolder(dir))).message).toMatch(/not an object/);
  });
});

describe('shards and their index', () => {
  const index = (map: Record<string, string>): Promise<void> =>
    json('model.safetensors.index.json', { weight_map: map });
  const [one, two] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];

  beforeEach(async () => {
    await json('config.json', { model_type: 'qwen3' });
    await shard(one, ['a', 'b']);
    await shard(two, ['c']);
  });

  it('make one map', async () => {
    await index({ a: one, b: one, c: two });
    const { weights } = await openModelFolder(dir);
    expect([...weights].map(([name, info]) => [name, info.file])).toEqual([
      ['a', join(dir, one)],
      ['b', join(dir, one)],
      ['c', join(dir, two)],
    ]);
  });

  it.each<[string, Record<string, string>, RegExp]>([
    [
      'a shard that is absent',
      { a: one, b: one, c: 'model-3.safetensors' },
      /`model-3\.safetensors`, which the folder lacks/,
    ],
    ['a tensor that its shard lacks', { a: one, b: one, c: two, d: two }, /00002\S* lacks `d`/],
    ['a tensor that the index does not name', { a: one, c: two }, /holds `b`, which the index does not name/],
    ['a tensor in another shard', { a: one, b: two, c: two }, /holds `b`, which the index puts in model-00002/],
    ['a shard outside of the folder', { a: '../model.safetensors' }, /weight_map\.a/],
  ])('%s', async (_, map, message) => {
    await index(map);
    expect((await refusal(openModelFolder(dir))).message).toMatch(message);
  });
});

const config = parseModelConfig({ model_type: 'qwen3', eos_token_id: [1, 2], dtype: 'bfloat16' }, 'config.json');

describe('a written model', () => {
  it('is read back with its config, weights, generation config and tokenizer', async () => {
    const tokenizerFrom = join(root, 'tokenizer');
    await mkdir(tokenizerFrom, { recursive: true });
    await writeFile(join(tokenizerFrom, 'tokenizer.json'), '{}');
    await writeFile(join(tokenizerFrom, 'optimizer.pt'), '');
    const tensors = new Map([['w', matrix([3, 2], 1 + 2 ** -8)]]);
    await writeModelFolder(dir, {
      config,
      tensors,
      generationConfig: { eos_token_id: 9 },
      tokenizerFrom,
      dtype: 'float32',
    });
    expect((await readdir(dir)).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    const model = await openModelFolder(dir);
    expect(model.config).toEqual({ ...config, dtype: 'float32' });
    expect(model.eosTokenIds).toEqual([1, 2, 9]);
    expect(await loadTensors(model.weights, ['w'])).toEqual(tensors);
  });

  it('is rounded to the dtype of its config', async () => {
    await writeModelFolder(dir, { config, tensors: new Map([['w', matrix([2], 1 + 2 ** -8)]]) });
    const { weights } = await openModelFolder(dir);
    expect(weights.get('w')?.dtype).toBe('BF16');
    expect((await loadTensors(weights, ['w'])).get('w')?.data).toEqual(Float32Array.of(1, 1));
  });

  it('names the tensors that it lacks', async () => {
    await writeModelFolder(dir, { config, tensors: new Map([['w', matrix([2])]]) });
    const { weights } = await openModelFolder(dir);
    expect((await refusal(loadTensors(weights, ['w', 'v', 'u']))).message).toBe('The checkpoint lacks `v`, `u`.');
  });
});

describe('the fingerprint', () => {
  const write = (value: number, at: number, length = 700_000): Promise<void> => {
    const data = new Float32Array(length);
    data[at] = value;
    return writeSafetensors(join(dir, 'model.safetensors'), [sourceOfArray('w', 'F32', [length], data)]);
  };

  it('is that of the content, wherever it lies, and differs with config, weights and size', async () => {
    await json('config.json', { model_type: 'qwen3' });
    await write(0, 0);
    const first = await fingerprint(dir);
    expect(first).toMatch(/^[0-9a-f]{64}$/);
    const copy = await mkdtemp(join(root, 'copy-'));
    for (const file of ['config.json', 'model.safetensors']) await copyFile(join(dir, file), join(copy, file));
    await writeFile(join(copy, 'README.md'), 'notes');
    expect(await fingerprint(copy)).toBe(first);

    const others = new Set([first]);
    await write(1, 0);
    others.add(await fingerprint(dir));
    await write(1, 699_999);
    others.add(await fingerprint(dir));
    await write(0, 0, 700_001);
    others.add(await fingerprint(dir));
    await write(0, 0);
    await json('config.json', { model_type: 'qwen3', rope_theta: 1 });
    others.add(await fingerprint(dir));
    expect(others.size).toBe(5);
  });

  it.each(['tokenizer.json', 'tokenizer_config.json', 'vocab.txt', 'chat_template.jinja'])(
    'differs with %s, and that of the weights does not',
    async (file) => {
      await json('config.json', { model_type: 'qwen3' });
      await write(0, 0, 4);
      const all = () => Promise.all([fingerprint, tokenizerFingerprint, weightsFingerprint].map((of) => of(dir)));
      await writeFile(join(dir, file), 'one');
      const before = await all();
      await writeFile(join(dir, file), 'two');
      expect((await all()).map((each, i) => each === before[i])).toEqual([false, false, true]);
    },
  );

  it('needs a model or an adapter', async () => {
    expect(await refusal(fingerprint(dir))).toMatchObject({ code: 'model.no-config' });
    expect(await refusal(fingerprint(join(dir, 'absent')))).toMatchObject({ code: 'checkpoint.missing-file' });
  });
});
