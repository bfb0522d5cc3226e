import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { golden } from '../../tests/support/golden.js';
import { openModelFolder } from '../checkpoints/model-folder.js';
import { Runtime } from '../runtime/runtime.js';
import { mergeAndCompare, mergeBounds } from './merge-report.js';

const runtime = new Runtime({ threads: 1 });
const [model, adapter] = [golden('qwen3/model'), golden('lora/adapter')];
let root: string;
const cacheBefore = process.env['DUANZI_CACHE'];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'merge-report-'));
  process.env['DUANZI_CACHE'] = join(root, 'cache');
});
afterAll(async () => {
  if (cacheBefore === undefined) delete process.env['DUANZI_CACHE'];
  else process.env['DUANZI_CACHE'] = cacheBefore;
  await runtime.close();
  await rm(root, { recursive: true });
});

describe('a merged model beside model and adapter', () => {
  it('is the same in float32, and says so in merge.json', async () => {
    const out = join(root, 'float32');
    const report = await mergeAndCompare(runtime, { model, adapter, out, dtype: 'float32' });
    expect(report.form).toBe('float32');
    expect(report.largestLogitDifference).toBeLessThanOrEqual(1e-4);
    expect(report.meanKl).toBeLessThan(1e-8);
    expect(JSON.parse(await readFile(join(out, 'merge.json'), 'utf8'))).toEqual({ model, adapter, ...report });
  });

  it('is the same in float32 where the model is in 4 bits', async () => {
    const out = join(root, 'dequantised');
    const given = { model: golden('nf4/checkpoint/model'), adapter, out, dtype: 'float32' } as const;
    const report = await mergeAndCompare(runtime, given);
    expect(report).toMatchObject({ form: 'float32', tokens: 48 });
    expect(report.largestLogitDifference).toBeLessThanOrEqual(1e-4);
    expect((await openModelFolder(out)).rawConfig).not.toHaveProperty('quantization_config');
  });

  it('differs by what rounding takes: less in bfloat16 than in 4 bits', async () => {
    const half = await mergeAndCompare(runtime, { model, adapter, out: join(root, 'bf16'), dtype: 'bfloat16' });
    const quarter = await mergeAndCompare(runtime, {
      model,
      adapter,
      out: join(root, 'nf4'),
      quantization: { kind: 'nf4', nested: true },
    });
    expect(half.form).toBe('16 bits');
    expect(quarter.form).toBe('4 bits');
    expect(half.meanKl).toBeGreaterThan(0);
    expect(quarter.meanKl).toBeGreaterThan(half.meanKl);
    expect(quarter.meanKl).toBeLessThanOrEqual(mergeBounds['4 bits']);
  });

  it('is refused above the bound, with nothing left', async () => {
    const out = join(root, 'refused');
    const request = { model, adapter, out, dtype: 'bfloat16', maxMeanKl: 0 } as const;
    await expect(mergeAndCompare(runtime, request)).rejects.toMatchObject({ code: 'merge.differs', exitCode: 2 });
    expect(existsSync(out)).toBe(false);
  });
});
