import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { quantizeModel } from '../../src/checkpoints/merge.js';
import { quantizeFourBit, scalesOf } from '../../src/checkpoints/quantized/four-bit.js';
import { readFourBit } from '../../src/checkpoints/quantized/stored-four-bit.js';
import { readFloats, readTensor, type TensorInfo } from '../../src/checkpoints/safetensors.js';
import { bytesOf } from '../../src/checkpoints/stored-dtype.js';
import { Decoder, type CausalModel } from '../../src/generation/decoder.js';
import { openPolicy, writingModel, type Policy } from '../../src/generation/policy.js';
import { unfiltered } from '../../src/generation/sampling-settings.js';
import { wrap, type Tensor } from '../../src/graph/tensor.js';
import { bytesNames, NF4_BLOCK, NF4_VALUES, nf4Names, type Quantization } from '../../src/nn/context.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { causalGraph, causalLossFeeds } from '../../src/training/language.js';

const NANO = 'assets/nano-qwen3';
const runtime = new Runtime({ threads: 1 });
let cache: string;

beforeAll(async () => {
  cache = await mkdtemp(join(tmpdir(), 'nf4-test-'));
  vi.stubEnv('DUANZI_CACHE', cache);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await runtime.close();
  await rm(cache, { recursive: true });
});

const lora = {
  r: 8,
  alpha: 16,
  dropout: 0,
  targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
};

const batch = [40, 23, 31].map((length, i) => {
  const random = stream(2, 'sample', i);
  const inputIds = Array.from({ length }, () => 300 + random.integer(800));
  return { inputIds, completionMask: inputIds.map((_, at): 0 | 1 => (at < 10 ? 0 : 1)) };
});

/** Loss of each token and gradient of each adapter weight, under names; neither factor of the adapter is zero. */
async function learn(model: string, quantization: Quantization, recompute = false): Promise<Map<string, Float32Array>> {
  const policy = await openPolicy(model, undefined, { quantization });
  const { graph, loss, context } = causalGraph(policy.config, { lora, quantization, recompute, statistics: true });
  const weights = [...context.loraWeights];
  const gradients = backward(
    loss,
    weights.map(([, value]) => value),
  );
  for (const [i, [name]] of weights.entries()) graph.output(name.replace('weight', 'gradient'), gradients[i]!);
  const program = await runtime.compile(graph, policy.model.weights);
  const adapter = weights.map(([name, { shape }]): [string, Tensor] => {
    const random = stream(3, name);
    const [rows, columns] = shape as [number, number];
    const data = Float32Array.from({ length: rows * columns }, () => 0.02 * random.normal());
    return [name, wrap('float32', [rows, columns], data)];
  });
  const results = await program.run({ ...causalLossFeeds(batch, 50), ...Object.fromEntries(adapter) });
  await program.dispose();
  return new Map(Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]));
}

/** ‖a − b‖ / ‖b‖, or ‖a‖ where b is zero. */
function distance(a: Float32Array, b: Float32Array): number {
  const norm = (values: Float32Array): number => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  return norm(a.map((value, i) => value - b[i]!)) / (norm(b) || 1);
}

function expectSame(results: ReadonlyMap<string, Float32Array>, expected: ReadonlyMap<string, Float32Array>): void {
  expect([...results.keys()]).toEqual([...expected.keys()]);
  for (const [name, values] of expected) expect(distance(results.get(name)!, values), name).toBeLessThan(2e-5);
}

describe('a base in NF4', () => {
  it('trains as the model whose weights are its dequantised ones does, blocks computed again or not', async () => {
    const dequantised = join(cache, 'four-bit');
    // A checkpoint in 4 bits computes in float32 with its dequantised weights.
    await quantizeModel(NANO, dequantised, { kind: 'nf4', nested: true });
    const expected = await learn(dequantised, 'float32');
    expect(expected.size).toBeGreaterThan(20);
    expectSame(await learn(NANO, 'nf4'), expected);
    expectSame(await learn(NANO, 'nf4', true), expected);
  });

  it('has the codes of a checkpoint that is in NF4 already, and quantises another as bitsandbytes does', async () => {
    const own = join(cache, 'own');
    await quantizeModel(NANO, own, { kind: 'nf4', nested: true });
    const [stored, made] = [
      await openPolicy(own, undefined, { quantization: 'nf4' }),
      await openPolicy(NANO, undefined, { quantization: 'nf4' }),
    ];
    const expectBytes = async (policy: Policy, name: string, expected: ArrayBufferView): Promise<void> => {
      const found = await readTensor(policy.model.weights.get(name) as TensorInfo);
      expect(Buffer.compare(bytesOf(found), bytesOf(expected)), name).toBe(0);
    };
    expect(stored.folder.quantized.size).toBeGreaterThan(10);
    for (const [name, info] of stored.folder.quantized) {
      const { codes, absmax } = nf4Names(name);
      const tensor = await readFourBit(info);
      await expectBytes(stored, codes, tensor.packed);
      await expectBytes(stored, absmax, scalesOf(tensor));
      const weight = made.folder.weights.get(name)!;
      const again = quantizeFourBit((await readFloats(weight)).data, weight.shape);
      await expectBytes(made, codes, again.packed);
      await expectBytes(made, absmax, scalesOf(again));
    }
  });

  it('refuses to round other 4 bits a second time', async () => {
    const other = join(cache, 'fp4');
    await quantizeModel(NANO, other, { kind: 'fp4', nested: false });
    await expect(openPolicy(other, undefined, { quantization: 'nf4' })).rejects.toMatchObject({
      code: 'model.other-four-bits',
      message: expect.stringContaining('is stored in fp4') as string,
    });
  });

  const write = async (
    model: string,
    quantization: Quantization,
    form: (policy: Policy) => CausalModel | Promise<CausalModel> = ({ model }) => model,
  ): Promise<{ ids: number[][]; logProbs: number[] }> => {
    const decoder = await Decoder.create(runtime, await form(await openPolicy(model, undefined, { quantization })));
    const completions = await decoder.generate([[301, 302, 303], [450]], {
      maxNewTokens: 12,
      sampling: { ...unfiltered, temperature: 0 },
      eosTokenIds: new Set(),
      padTokenId: 0,
      batchSize: 2,
      random: () => ({ uniform: () => 0.5 }),
    });
    await decoder.dispose();
    return { ids: completions.map(({ ids }) => ids), logProbs: completions.flatMap(({ logProbs }) => logProbs) };
  };

  it('writes what the model with its dequantised weights writes', async () => {
    const dequantised = join(cache, 'writing');
    await quantizeModel(NANO, dequantised, { kind: 'nf4', nested: true });
    expect((await write(NANO, 'nf4')).ids).toEqual((await write(dequantised, 'float32')).ids);
  });

  it('writes with its codes in bytes on a processor, near to what it is and far from what it was made of', async () => {
    const exact = await write(NANO, 'nf4');
    const near = await write(NANO, 'nf4', async (policy) => writingModel(policy, 'cpu'));
    const model = await write(NANO, 'nf4', async (policy) => writingModel(policy, 'webgpu'));
    expect(model).toEqual(exact);
    expect(near.ids).toEqual(exact.ids);
    const furthest = (from: readonly number[]): number =>
      Math.max(...exact.logProbs.map((value, i) => Math.abs(value - from[i]!)));
    expect(furthest(near.logProbs)).toBeGreaterThan(0);
    expect(furthest(near.logProbs)).toBeLessThan(0.1 * furthest((await write(NANO, 'float32')).logProbs));
  });

  it('keeps the values of its codes within half a step of 1/127 of their scale', async () => {
    const { weights } = await writingModel(await openPolicy(NANO, undefined, { quantization: 'nf4' }), 'cpu');
    const read = async (name: string): Promise<ArrayLike<number>> =>
      (await readTensor(weights.get(name) as TensorInfo)) as Uint8Array | Float32Array;
    const matrix = [...weights.keys()].find((name) => name.endsWith('down_proj.weight'))!;
    const [own, bytes] = [nf4Names(matrix), bytesNames(matrix)];
    const [codes, absmax] = [await read(own.codes), (await readFloats(weights.get(own.absmax) as TensorInfo)).data];
    const packed = await read(bytes.packed);
    const scale = (await readFloats(weights.get(bytes.scale) as TensorInfo)).data;
    expect(packed.length).toBe(2 * codes.length);
    for (let i = 0; i < packed.length; i++) {
      const code = i % 2 === 0 ? codes[i >> 1]! >> 4 : codes[i >> 1]! & 15;
      const largest = absmax[Math.floor(i / NF4_BLOCK)]!;
      const off = Math.abs((packed[i]! - 128) * scale[Math.floor(i / NF4_BLOCK)]! - NF4_VALUES[code]! * largest);
      if (off > (0.5001 * largest) / 127) throw new Error(`entry ${i} is off by ${off} of ${largest}`);
    }
  });
});
