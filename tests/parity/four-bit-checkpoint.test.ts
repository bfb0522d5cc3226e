import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { quantizeModel } from '../../src/checkpoints/merge.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { dequantizeFourBit, scalesOf, type FourBitTensor } from '../../src/checkpoints/quantized/four-bit.js';
import { readFourBit } from '../../src/checkpoints/quantized/stored-four-bit.js';
import { readFloats, readHeader, readTensor, type TensorInfo } from '../../src/checkpoints/safetensors.js';
import {
  sourceOfArray,
  sourceOfFile,
  sourceOfFloats,
  writeSafetensors,
} from '../../src/checkpoints/safetensors-writer.js';
import { openPolicy } from '../../src/generation/policy.js';
import type { Tensor } from '../../src/graph/tensor.js';
import { causalHidden, causalLogits } from '../../src/models/causal.js';
import { packedFeeds, packedTokens } from '../../src/models/packed-tokens.js';
import { ModelContext } from '../../src/nn/context.js';
import { newGraph } from '../../src/ops/registry.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';
import { padded, sequencesOf } from '../support/packed.js';

const runtime = new Runtime({ threads: 1 });
const recorded = golden('nf4/checkpoint/model');
const wholeRows = golden('nf4/whole_rows/model');
let root: string;
const cacheBefore = process.env['DUANZI_CACHE'];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'four-bit-'));
  process.env['DUANZI_CACHE'] = join(root, 'cache');
});
afterAll(async () => {
  if (cacheBefore === undefined) delete process.env['DUANZI_CACHE'];
  else process.env['DUANZI_CACHE'] = cacheBefore;
  await runtime.close();
  await rm(root, { recursive: true });
});

/**
 * A weight as the recording machine dequantised it. The library's kernel for AVX-512 (0.50.2) takes each row to begin
 * with a block of its own; where rows are no whole number of blocks, that gives values wrong scales. Its own quantiser,
 * its kernel in plain PyTorch (`portable.safetensors`) and this project count blocks over the whole tensor. The two are
 * the same for rows of whole blocks (`whole_rows/`), which published models have.
 */
function asRecorded(tensor: FourBitTensor): Float32Array {
  const [rows, columns] = tensor.shape as [number, number];
  const scales = scalesOf(tensor);
  const blocksOfRow = Math.floor(columns / tensor.blockSize);
  const ones = dequantizeFourBit(tensor, { scales: scales.map(() => 1) });
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return ones[i]! * scales[row * blocksOfRow + Math.floor(column / tensor.blockSize)]!;
  });
}

/** The weights of the recorded checkpoint with those of rows that are no whole number of blocks as recorded. */
async function recordedWeights(): Promise<ReadonlyMap<string, TensorInfo>> {
  const { weights, quantized } = await openModelFolder(recorded);
  const uneven = [...quantized.values()].filter(({ shape, blockSize }) => shape[1]! % blockSize !== 0);
  const file = join(root, 'uneven.safetensors');
  await writeSafetensors(
    file,
    await Promise.all(
      uneven.map(async (stored) =>
        sourceOfFloats(stored.name, {
          dtype: 'float32',
          shape: stored.shape,
          data: asRecorded(await readFourBit(stored)),
        }),
      ),
    ),
  );
  return new Map([...weights, ...(await readHeader(file)).tensors]);
}

type Batch = Awaited<ReturnType<typeof goldenTensors>>;

async function logitsOf(model: string, weights: ReadonlyMap<string, TensorInfo>, batch: Batch): Promise<Float32Array> {
  const { config } = await openPolicy(model);
  const context = new ModelContext(newGraph());
  const { hidden } = causalHidden(context, config, packedTokens(context));
  context.graph.output('logits', causalLogits(context, config, hidden));
  const program = await runtime.compile(context.graph, weights);
  const mask = take(batch, 'attention_mask');
  const { logits } = await program.run(packedFeeds(sequencesOf(take(batch, 'input_ids'), mask)));
  await program.dispose();
  return padded(logits!, mask);
}

/** Where there is a token, the logits are those recorded, within what was recommended with them. */
function expectLogits(ours: Float32Array, theirs: Tensor, batch: Batch): void {
  const mask = take(batch, 'attention_mask').data;
  const vocabulary = theirs.data.length / mask.length;
  for (const [at, real] of mask.entries()) {
    if (real === 0) continue;
    const row = [at * vocabulary, (at + 1) * vocabulary] as const;
    expect(
      excess(ours.subarray(...row), (theirs.data as Float32Array).subarray(...row), { atol: 2e-4 }),
    ).toBeLessThanOrEqual(0);
  }
}

const distance = (a: Float32Array, b: Float32Array): number =>
  Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0));

describe('a checkpoint that transformers saved in 4 bits', () => {
  it('is dequantised to the recorded values', async () => {
    const { weights, quantized } = await openModelFolder(recorded);
    const original = (await openModelFolder(golden('qwen3/model'))).weights;
    const { quantized_modules: names } = goldenJson('nf4/checkpoint/notes.json') as { quantized_modules: string[] };
    expect([...quantized.keys()].sort()).toEqual(names);
    expect([...weights.keys()].sort()).toEqual([...original.keys()].sort());
    const batch = await goldenTensors('nf4/checkpoint/batch.safetensors');
    const dequantized = [...batch].filter(([name]) => name.startsWith('dequantized.'));
    expect(dequantized.length).toBeGreaterThan(5);
    for (const [full, { shape, data }] of dequantized) {
      const name = full.slice('dequantized.'.length);
      const ours = await readFloats(weights.get(name)!);
      const theirs = data as Float32Array;
      expect(ours.shape).toEqual(shape);
      if (shape[1]! % 64 === 0) {
        expect(excess(ours.data, theirs, { atol: 1e-6 }), name).toBeLessThanOrEqual(0);
        continue;
      }
      const kernel = asRecorded(await readFourBit(quantized.get(name)!));
      expect(excess(kernel, theirs, { atol: 1e-6 }), name).toBeLessThanOrEqual(0);
      const before = (await readFloats(original.get(name)!)).data;
      expect(distance(ours.data, before), name).toBeLessThan(0.5 * distance(theirs, before));
    }
  });

  it('gives the recorded logits with the weights as they were recorded', async () => {
    const batch = await goldenTensors('nf4/checkpoint/batch.safetensors');
    expectLogits(await logitsOf(recorded, await recordedWeights(), batch), take(batch, 'logits'), batch);
  });

  it.each([
    ['rows that are no whole number of blocks', recorded, 'checkpoint', 'portable', ['logits']],
    ['rows of whole blocks', wholeRows, 'whole_rows', 'batch', ['logits', 'logits_bitsandbytes']],
  ])('gives the logits of bitsandbytes on its own weights: %s', async (_, model, name, file, outputs) => {
    const batch = await goldenTensors(`nf4/${name}/batch.safetensors`);
    const theirs = await goldenTensors(`nf4/${name}/${file}.safetensors`);
    const { weights, quantized } = await openModelFolder(model);
    const dequantized = [...theirs].filter(([key]) => key.startsWith('dequantized.'));
    expect(dequantized).toHaveLength(7);
    for (const [key, { data }] of dequantized) {
      const weight = key.slice('dequantized.'.length);
      expect(quantized.has(weight)).toBe(true);
      expect((await readFloats(weights.get(weight)!)).data, weight).toEqual(data);
    }
    const ours = await logitsOf(model, weights, batch);
    for (const output of outputs) expectLogits(ours, take(theirs, output), batch);
  });

  it('is written byte for byte from the model that it was made of', async () => {
    const out = join(root, 'written');
    await quantizeModel(golden('qwen3/model'), out, { kind: 'nf4', nested: true }, { dtype: 'bfloat16' });
    const [ours, theirs] = await Promise.all([out, recorded].map((dir) => readFile(join(dir, 'model.safetensors'))));
    expect(ours!.equals(theirs!)).toBe(true);
    const config = JSON.parse(await readFile(join(out, 'config.json'), 'utf8')) as Record<string, unknown>;
    const original = goldenJson('nf4/checkpoint/model/config.json') as Record<string, unknown>;
    expect({ ...(config['quantization_config'] as object), llm_int8_threshold: 6 }).toEqual(
      original['quantization_config'],
    );
    expect(config['dtype']).toBe('bfloat16');
  });

  it.each([
    { kind: 'fp4', nested: true },
    { kind: 'fp4', nested: false },
    { kind: 'nf4', nested: false },
  ] as const)('is written and read as $kind, nested $nested, too', async (quantization) => {
    const out = join(root, `${quantization.kind}-${String(quantization.nested)}`);
    await quantizeModel(golden('qwen3/model'), out, quantization);
    const [original, ours] = [await openModelFolder(golden('qwen3/model')), await openModelFolder(out)];
    expect([...ours.weights.keys()].sort()).toEqual([...original.weights.keys()].sort());
    for (const name of ours.quantized.keys()) {
      const [a, b] = [await readFloats(ours.weights.get(name)!), await readFloats(original.weights.get(name)!)];
      const largest = b.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      // Half the widest gap between codes of FP4, a third of a block's largest magnitude, and the error of its scale.
      expect(excess(a.data, b.data, { atol: 0.2 * largest }), name).toBeLessThanOrEqual(0);
    }
  });
});

describe('a checkpoint that is not whole or of another kind is refused', () => {
  const copied = async (name: string, config: object = {}): Promise<string> => {
    const dir = join(root, name);
    await cp(recorded, dir, { recursive: true });
    const json = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8')) as Record<string, unknown>;
    await writeFile(join(dir, 'config.json'), JSON.stringify({ ...json, ...config }));
    return dir;
  };

  it.each([
    [{ quant_method: 'gptq', bits: 4 }, 'gptq'],
    [{ quant_method: 'bitsandbytes', load_in_8bit: true }, '8 bits'],
    [{ quant_method: 'bitsandbytes', load_in_4bit: true, bnb_4bit_quant_type: 'af4' }, 'af4'],
  ])('%j', async (quantization_config, named) => {
    const dir = await copied(named, { quantization_config });
    await expect(openModelFolder(dir)).rejects.toMatchObject({
      code: 'model.unsupported-quantization',
      exitCode: 2,
      message: expect.stringContaining(named) as string,
    });
  });

  it.each(['.quant_map', '.nested_absmax', ''])('a part of a weight is missing: "%s"', async (part) => {
    const dir = await copied(`lacks${part}`);
    const { tensors } = await readHeader(join(recorded, 'model.safetensors'));
    const lost = `model.layers.1.mlp.up_proj.weight${part}`;
    const kept = [...tensors.values()].filter(({ name }) => name !== lost);
    await writeSafetensors(join(dir, 'model.safetensors'), kept.map(sourceOfFile));
    await expect(openModelFolder(dir)).rejects.toMatchObject({
      code: 'checkpoint.broken-quantization',
      exitCode: 2,
      message: expect.stringContaining(lost) as string,
    });
  });

  it('a part of another length', async () => {
    const dir = await copied('short');
    const { tensors } = await readHeader(join(recorded, 'model.safetensors'));
    const sources = await Promise.all(
      [...tensors.values()].map(async (info) =>
        info.name === 'model.layers.0.self_attn.q_proj.weight.absmax'
          ? sourceOfArray(info.name, 'U8', [95], ((await readTensor(info)) as Uint8Array<ArrayBuffer>).subarray(1))
          : sourceOfFile(info),
      ),
    );
    await writeSafetensors(join(dir, 'model.safetensors'), sources);
    await expect(openModelFolder(dir)).rejects.toMatchObject({ message: expect.stringContaining('95') as string });
  });
});
