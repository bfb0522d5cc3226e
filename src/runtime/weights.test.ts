import { mkdir, mkdtemp, rm, symlink, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readHeader } from '../checkpoints/safetensors.js';
import { sourceOfFloats, writeSafetensors } from '../checkpoints/safetensors-writer.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { add, matmul, mul, reduceSum } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import type { Graph } from '../graph/graph.js';
import { Runtime, type StoredTensor } from './runtime.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const start = process.cwd();
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'weights-'));
});
afterEach(() => {
  process.chdir(start);
});
afterAll(() => rm(folder, { recursive: true }));

const f32 = (shape: readonly number[], values: readonly number[]): Tensor<'float32'> =>
  tensor('float32', shape, values);

const INPUTS = 64;
const OUTPUTS = 48;

/** Values that all three formats hold exactly, and so few bits that no sum of them is rounded. */
const quarters = (count: number): number[] => Array.from({ length: count }, (_, k) => (((k * 7) % 31) - 15) / 4);
const matrix = f32([INPUTS, OUTPUTS], quarters(INPUTS * OUTPUTS));
const small = f32([2, 3], quarters(6));
const bias = f32([OUTPUTS], quarters(OUTPUTS));
const scale = f32([], [2]);

const x = f32(
  [1, INPUTS],
  Array.from({ length: INPUTS }, (_, k) => (k % 5) - 2),
);

/** (x · matrix + bias) · scale + Σ small */
const expected = f32(
  [1, OUTPUTS],
  Array.from(bias.data, (shift, column) => {
    const product = x.data.reduce((sum, value, k) => sum + value * matrix.data[k * OUTPUTS + column]!, 0);
    return (product + shift) * 2 + small.data.reduce((sum, value) => sum + value, 0);
  }),
);

function affine(): Graph {
  const graph = newGraph();
  const weight = (name: string, shape: readonly number[]) => graph.parameter(name, 'float32', shape);
  const product = matmul(graph.input('x', 'float32', ['B', INPUTS]), weight('matrix', [INPUTS, OUTPUTS]));
  const scaled = mul(add(product, weight('bias', [OUTPUTS])), weight('scale', []));
  graph.output('y', add(scaled, reduceSum(weight('small', [2, 3]))));
  return graph;
}

async function writeWeights(file: string, dtype: 'F32' | 'F16' | 'BF16'): Promise<Map<string, StoredTensor>> {
  await writeSafetensors(
    file,
    Object.entries({ matrix, small, bias, scale }).map(([name, values]) => sourceOfFloats(name, values, dtype)),
  );
  return new Map((await readHeader(file)).tensors);
}

const elsewhere = (weights: ReadonlyMap<string, StoredTensor>, file: string): Map<string, StoredTensor> =>
  new Map([...weights].map(([name, stored]) => [name, { ...stored, file }]));

async function resultWith(weights: ReadonlyMap<string, StoredTensor>): Promise<Tensor> {
  const program = await runtime.compile(affine(), weights);
  expect([...program.inputs.keys()]).toEqual(['x']);
  const { y } = await program.run({ x });
  await program.dispose();
  return y!;
}

describe('weights in a file', () => {
  it.each(['F32', 'F16', 'BF16'] as const)('are read as %s', async (dtype) => {
    const weights = await writeWeights(path.join(folder, `${dtype}.safetensors`), dtype);
    expect(weights.get('matrix')!.dtype).toBe(dtype);
    expect(await resultWith(weights)).toEqual(expected);
  });

  it('are found through symbolic links, as the hub’s cache has them', async () => {
    await mkdir(path.join(folder, 'blobs'));
    await mkdir(path.join(folder, 'snapshots', 'main'), { recursive: true });
    const weights = await writeWeights(path.join(folder, 'blobs', '0a1b'), 'F32');
    const link = path.join(folder, 'snapshots', 'main', 'model.safetensors');
    await symlink(path.join('..', '..', 'blobs', '0a1b'), link);
    expect(await resultWith(elsewhere(weights, link))).toEqual(expected);
  });

  it('are found from any working directory, which stays what it was', async () => {
    const weights = await writeWeights(path.join(folder, 'model.safetensors'), 'F32');
    process.chdir(folder);
    const here = process.cwd();
    expect(await resultWith(weights)).toEqual(expected);
    expect(await resultWith(elsewhere(weights, 'model.safetensors'))).toEqual(expected);
    await mkdir('deep', { recursive: true });
    process.chdir('deep');
    expect(await resultWith(elsewhere(weights, '../model.safetensors'))).toEqual(expected);
    expect(process.cwd()).toBe(path.join(here, 'deep'));
  });

  it('are found by several runtimes that compile at the same moment', async () => {
    const weights = await writeWeights(path.join(folder, 'shared.safetensors'), 'F32');
    const others = [new Runtime({ threads: 1 }), new Runtime({ threads: 1 })];
    const programs = await Promise.all([runtime, ...others].map((each) => each.compile(affine(), weights)));
    for (const program of programs) expect((await program.run({ x }))['y']).toEqual(expected);
    expect(process.cwd()).toBe(start);
    await Promise.all(others.map((each) => each.close()));
  });

  it('may be given for some parameters; the others are feeds', async () => {
    const weights = await writeWeights(path.join(folder, 'partial.safetensors'), 'F32');
    weights.delete('matrix');
    const program = await runtime.compile(affine(), weights);
    expect([...program.inputs.keys()]).toEqual(['x', 'matrix']);
    expect((await program.run({ x, matrix }))['y']).toEqual(expected);
  });

  it('of another shape than the parameter are refused', async () => {
    const weights = await writeWeights(path.join(folder, 'shape.safetensors'), 'F32');
    weights.set('matrix', { ...weights.get('matrix')!, shape: [OUTPUTS, INPUTS] });
    await expect(resultWith(weights)).rejects.toThrow(
      "the file holds 'matrix' as (48, 64) where the graph has (64, 48)",
    );
  });

  it('of a dtype that is no float of 16 or 32 bits are refused', async () => {
    const weights = await writeWeights(path.join(folder, 'dtype.safetensors'), 'F32');
    weights.set('bias', { ...weights.get('bias')!, dtype: 'I64' });
    await expect(resultWith(weights)).rejects.toThrow("'bias' is stored as I64, not as one of F32, F16, BF16");
  });

  it('in a file that is missing or ends too early are refused', async () => {
    const file = path.join(folder, 'short.safetensors');
    const weights = await writeWeights(file, 'F32');
    await expect(resultWith(elsewhere(weights, path.join(folder, 'none')))).rejects.toThrow('ENOENT');
    // All but the vectors is left to the runtime.
    await truncate(file, weights.get('matrix')!.offset + 100);
    await expect(resultWith(weights)).rejects.toThrow('ends within the tensor at');
    const alone = new Map([['matrix', weights.get('matrix')!]]);
    await expect(runtime.compile(affine(), alone)).rejects.toThrow('matrix');
    expect(process.cwd()).toBe(start);
  });

  it('of a length that does not fill the shape are refused', async () => {
    for (const name of ['matrix', 'bias']) {
      const weights = await writeWeights(path.join(folder, 'length.safetensors'), 'F32');
      const stored = weights.get(name)!;
      weights.set(name, { ...stored, length: stored.length - 4 });
      await expect(resultWith(weights)).rejects.toThrow(
        `'${name}' takes ${stored.length} bytes as F32(${stored.shape.join(', ')}), but its file holds ${stored.length - 4}`,
      );
    }
  });
});
