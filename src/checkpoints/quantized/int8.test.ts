import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { writeTinyModel } from '../../../tests/support/tiny-model.js';
import { openPolicy } from '../../generation/policy.js';
import { stream } from '../../random.js';
import { int8Scales, quantizeRow } from './int8.js';
import { readHeader, readTensor } from '../safetensors.js';

const [ROWS, COLUMNS] = [48, 96];

function drawn(edit: (weights: Float32Array) => void = () => undefined): Float32Array<ArrayBuffer> {
  const random = stream(4, 'weights');
  const weights = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal());
  edit(weights);
  return weights;
}

/** What 8 bits leave of a matrix. */
async function throughInt8(weights: Float32Array<ArrayBuffer>): Promise<Float32Array> {
  const { inputScale, outputScale } = await int8Scales(ROWS, COLUMNS, (start, count) =>
    Promise.resolve(weights.slice(start * COLUMNS, (start + count) * COLUMNS)),
  );
  const bytes = new Int8Array(COLUMNS);
  return weights.map((_, at) => {
    const [row, column] = [Math.floor(at / COLUMNS), at % COLUMNS];
    if (column === 0) {
      quantizeRow(weights.subarray(at, at + COLUMNS), inputScale, outputScale[row]!, bytes);
      expect(bytes.every((value) => value >= -127)).toBe(true);
    }
    return bytes[column]! * inputScale[column]! * outputScale[row]!;
  });
}

/** Root mean square error of the elements that `of` names, relative to theirs. */
function error(actual: Float32Array, expected: Float32Array, of: (at: number) => boolean = () => true): number {
  let [errors, total] = [0, 0];
  for (const [at, value] of expected.entries()) {
    if (!of(at)) continue;
    errors += (actual[at]! - value) ** 2;
    total += value ** 2;
  }
  return Math.sqrt(errors / total);
}

describe('int8Scales', () => {
  it('keeps a matrix within one per cent', async () => {
    const weights = drawn();
    expect(error(await throughInt8(weights), weights)).toBeLessThan(0.01);
  });

  it('keeps the rest of a matrix as exact beside a column or a row fifty times as large', async () => {
    const planted = drawn((weights) => {
      for (let o = 0; o < ROWS; o++) weights[o * COLUMNS + 5]! *= 50;
      for (let i = 0; i < COLUMNS; i++) weights[7 * COLUMNS + i]! *= 50;
    });
    const rounded = await throughInt8(planted);
    const isPlain = (at: number): boolean => at % COLUMNS !== 5 && Math.floor(at / COLUMNS) !== 7;
    expect(error(rounded, planted, isPlain)).toBeLessThan(0.01);
    expect(error(rounded, planted, (at) => !isPlain(at))).toBeLessThan(0.01);
  });

  it('takes rows and columns of zeros', async () => {
    const weights = drawn((values) => {
      values.fill(0, 0, COLUMNS);
      for (let o = 0; o < ROWS; o++) values[o * COLUMNS + 3] = 0;
    });
    const rounded = await throughInt8(weights);
    expect(rounded.subarray(0, COLUMNS).every((value) => value === 0)).toBe(true);
    expect(error(rounded, weights)).toBeLessThan(0.01);
  });
});

describe('the 8-bit form of a model', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'int8-test-'));
    vi.stubEnv('DUANZI_CACHE', join(folder, 'cache'));
    await writeTinyModel(join(folder, 'model'));
  });
  afterAll(async () => {
    vi.unstubAllEnvs();
    await rm(folder, { recursive: true });
  });

  it('is made once, whole, and holds each matrix of a linear layer as it lies and transposed', async () => {
    const { model } = await openPolicy(join(folder, 'model'), undefined, { quantization: 'int8' });
    const [file, ...others] = await readdir(join(folder, 'cache', 'int8'));
    expect(others).toEqual([]);
    const { tensors } = await readHeader(join(folder, 'cache', 'int8', file!));
    // Seven matrices in each of two blocks, and the head; each lying, transposed, with two scales and two lists of outliers.
    expect(tensors.size).toBe((2 * 7 + 1) * 6);
    for (const name of ['model.layers.1.mlp.down_proj.weight', 'model.embed_tokens.weight']) {
      const [lying, turned] = [tensors.get(`${name}.int8`)!, tensors.get(`${name}.int8_transposed`)!];
      const [rows, columns] = lying.shape as [number, number];
      expect(turned.shape).toEqual([columns, rows]);
      const [a, b] = [await readTensor(lying), await readTensor(turned)];
      for (let at = 0; at < rows * columns; at++) {
        expect(b[(at % columns) * rows + Math.floor(at / columns)]).toBe(a[at]);
      }
      expect(model.weights.get(`${name}.int8`)).toMatchObject({ dtype: 'I8' });
    }
    await openPolicy(join(folder, 'model'), undefined, { quantization: 'int8' });
    expect(await readdir(join(folder, 'cache', 'int8'))).toEqual([file]);
  });
});
