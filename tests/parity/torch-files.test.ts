import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModelFolder, type ModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats } from '../../src/checkpoints/safetensors.js';
import { RewardModel } from '../../src/rewards/reward-model.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
let root: string;
const cacheBefore = process.env['DUANZI_CACHE'];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'torch-files-'));
  process.env['DUANZI_CACHE'] = join(root, 'cache');
});
afterAll(async () => {
  if (cacheBefore === undefined) delete process.env['DUANZI_CACHE'];
  else process.env['DUANZI_CACHE'] = cacheBefore;
  await runtime.close();
  await rm(root, { recursive: true });
});

/** A model folder with one of the recorded files as its weights. */
async function folderOf(recording: string): Promise<string> {
  const dir = join(root, recording);
  await mkdir(dir, { recursive: true });
  await copyFile(golden('deberta_bin/model/config.json'), join(dir, 'config.json'));
  await copyFile(golden(`deberta_bin/${recording}`), join(dir, 'pytorch_model.bin'));
  return dir;
}

async function expectRecordedTensors({ weights }: ModelFolder): Promise<void> {
  const recorded = goldenJson('deberta_bin/tensors.json') as Record<string, [number[], string, number, number]>;
  expect([...weights.keys()].sort()).toEqual(Object.keys(recorded).sort());
  const original = (await openModelFolder(golden('deberta/model'))).weights;
  for (const [name, [shape, , sum, largest]] of Object.entries(recorded)) {
    const { data, shape: ours } = await readFloats(weights.get(name)!);
    expect(ours, name).toEqual(shape);
    if (weights.get(name)!.dtype === 'F16') continue;
    expect(data, name).toEqual((await readFloats(original.get(name)!)).data);
    expect(
      data.reduce((total, value) => total + value, 0),
      name,
    ).toBeCloseTo(sum, 6);
    expect(
      data.reduce((most, value) => Math.max(most, Math.abs(value)), 0),
      name,
    ).toBe(largest);
  }
}

async function logitsOf(dir: string): Promise<number[]> {
  const batch = await goldenTensors('deberta/batch.safetensors');
  const { data: ids, shape } = take(batch, 'input_ids');
  const mask = take(batch, 'attention_mask').data;
  const [rows, length] = shape as [number, number];
  const sequences = Array.from({ length: rows }, (_, row) =>
    Array.from(ids.subarray(row * length, (row + 1) * length), Number).filter(
      (_, t) => Number(mask[row * length + t]) === 1,
    ),
  );
  const model = await RewardModel.open(runtime, dir);
  const logits = await model.logitsOfIds(sequences, { batchSize: rows });
  await model.dispose();
  return logits.flat();
}

const recordedLogits = async (): Promise<ArrayLike<number>> =>
  take(await goldenTensors('deberta/batch.safetensors'), 'logits').data;

describe('weights in pytorch_model.bin', () => {
  it('are read where they lie in the archive', async () => {
    const dir = await folderOf('model/pytorch_model.bin');
    const folder = await openModelFolder(dir);
    await expectRecordedTensors(folder);
    for (const { file, offset } of folder.weights.values()) {
      expect(file).toBe(join(dir, 'pytorch_model.bin'));
      expect(offset % 64).toBe(0);
    }
    expect(excess(await logitsOf(dir), await recordedLogits(), { atol: 1e-4 })).toBeLessThanOrEqual(0);
    expect(existsSync(join(root, 'cache'))).toBe(false);
  });

  it('are widened exactly where they are float16, in part of the tensors', async () => {
    const { weights } = await openModelFolder(await folderOf('mixed_f16.bin'));
    const narrow = [...weights.values()].filter(({ dtype }) => dtype === 'F16');
    expect(narrow.length).toBe(Math.floor(weights.size / 2));
    const original = (await openModelFolder(golden('deberta/model'))).weights;
    for (const info of weights.values()) {
      const wide = await readFloats(original.get(info.name)!);
      const ours = await readFloats(info);
      // Half a step of float16, whose smallest step is 2⁻²⁴.
      const rtol = info.dtype === 'F16' ? 2 ** -11 : 0;
      expect(excess(ours.data, wide.data, { rtol, atol: rtol > 0 ? 2 ** -25 : 0 }), info.name).toBeLessThanOrEqual(0);
    }
    expect((await logitsOf(await folderOf('mixed_f16.bin'))).every(Number.isFinite)).toBe(true);
  });

  it('are converted once where the older form has them at odd addresses, and found again', async () => {
    const dir = await folderOf('legacy.bin');
    await expectRecordedTensors(await openModelFolder(dir));
    expect(excess(await logitsOf(dir), await recordedLogits(), { atol: 1e-4 })).toBeLessThanOrEqual(0);
    const [entry, ...others] = await readdir(join(root, 'cache/converted'));
    expect(others).toEqual([]);
    const file = join(root, 'cache/converted', entry!, 'model.safetensors');
    const before = await stat(file);
    await openModelFolder(dir);
    expect(await stat(file)).toEqual(before);
  });

  it('are refused with nothing run where the file asks for a command', async () => {
    const dir = await folderOf('hostile.bin');
    await expect(openModelFolder(dir)).rejects.toMatchObject({
      code: 'checkpoint.unsafe-pickle',
      exitCode: 2,
      where: join(dir, 'pytorch_model.bin'),
      message: expect.stringContaining('posix.system') as string,
    });
    for (const place of [process.cwd(), dir]) expect(existsSync(join(place, 'pwned'))).toBe(false);
  });
});
