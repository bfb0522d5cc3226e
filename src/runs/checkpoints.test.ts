import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { pruneCheckpoints } from './checkpoint-retention.js';
import { rewriteRecord } from '../../tests/support/rewrite-record.js';
import { checkpointPath, latestCheckpoint, loadCheckpoint, saveCheckpoint } from './checkpoints.js';

const schema = z.object({ epoch: z.number(), randomState: z.array(z.int()) });

let out: string;
beforeEach(() => {
  out = mkdtempSync(join(tmpdir(), 'duanzi-checkpoints-'));
});
afterEach(() => {
  rmSync(out, { recursive: true, force: true });
});

const state = { epoch: 0.25, randomState: [1, 2, 3] };

async function write(folder: string): Promise<void> {
  await writeFile(
    join(folder, 'optimizer.safetensors'),
    Uint8Array.from({ length: 300 }, (_, i) => i),
  );
  await mkdir(join(folder, 'adapter'));
  await writeFile(join(folder, 'adapter', 'adapter_model.safetensors'), 'weights');
}

const save = (step: number, best?: number) =>
  saveCheckpoint(out, {
    stage: 'sft',
    step,
    state,
    schema,
    write,
    best: best === undefined ? undefined : { step: best, metric: 'eval_loss', value: 0.5 },
  });
const load = (step: number) => loadCheckpoint(checkpointPath(out, step), { stage: 'sft', schema });

function flipByte(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 0x01;
  writeFileSync(path, bytes);
}

const steps = () =>
  readdirSync(join(out, 'checkpoints'))
    .filter((name) => name.startsWith('step-'))
    .sort();

describe('saveCheckpoint and loadCheckpoint', () => {
  it('give back the state and the files', async () => {
    expect(await save(10)).toEqual({ step: 10, path: join(out, 'checkpoints', 'step-10') });
    const checkpoint = await load(10);
    expect(checkpoint).toMatchObject({ step: 10, stage: 'sft', state });
    expect(readFileSync(checkpoint.file('optimizer.safetensors'))).toHaveLength(300);
    expect(readFileSync(checkpoint.file('adapter/adapter_model.safetensors'), 'utf8')).toBe('weights');
    expect(() => checkpoint.file('other')).toThrow(expect.objectContaining({ code: 'checkpoint.broken' }));
  });

  it('replace a checkpoint of the same step', async () => {
    await save(10);
    await saveCheckpoint(out, { stage: 'sft', step: 10, state: { ...state, epoch: 9 }, schema, write });
    expect((await load(10)).state.epoch).toBe(9);
  });

  it('refuse a state that JSON would change, and write nothing', async () => {
    const broken = { ...state, epoch: NaN };
    await expect(saveCheckpoint(out, { stage: 'sft', step: 1, state: broken, schema, write })).rejects.toThrow();
    expect(existsSync(join(out, 'checkpoints'))).toBe(false);
  });

  it('write nothing when the tensors cannot be written', async () => {
    const failing = () => Promise.reject(new Error('out of memory'));
    await expect(saveCheckpoint(out, { stage: 'sft', step: 1, state, schema, write: failing })).rejects.toThrow(
      'out of memory',
    );
    expect(readdirSync(join(out, 'checkpoints'))).toEqual([]);
  });

  it('say when the checkpoint is of another stage or of another version', async () => {
    await save(10);
    const path = checkpointPath(out, 10);
    await expect(loadCheckpoint(path, { stage: 'rm', schema })).rejects.toMatchObject({ code: 'checkpoint.stage' });
    const other = z.object({ rollouts: z.number() });
    await expect(loadCheckpoint(path, { stage: 'sft', schema: other })).rejects.toMatchObject({
      code: 'checkpoint.state',
      where: join(path, 'state.json'),
    });
  });

  it('notice any flipped bit of any file', async () => {
    await save(10);
    const files = ['optimizer.safetensors', 'adapter/adapter_model.safetensors', 'state.json'];
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...files), fc.nat(), async (name, position) => {
        const path = join(checkpointPath(out, 10), name);
        const at = position % readFileSync(path).length;
        flipByte(path, at);
        const outcome = await load(10).catch((error: unknown) => error);
        flipByte(path, at);
        // A flipped blank between tokens of state.json can leave the same JSON.
        if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'checkpoint.broken' });
        else expect(outcome).toMatchObject({ step: 10, state });
      }),
      { numRuns: 100 },
    );
    expect((await load(10)).state).toEqual(state);
  });
});

describe('latestCheckpoint', () => {
  it('finds none in a new folder', async () => {
    expect(await latestCheckpoint(out)).toEqual({ checkpoint: undefined, skipped: [] });
  });

  it('takes the newest by number, not by name', async () => {
    for (const step of [9, 100, 20]) await save(step);
    mkdirSync(join(out, 'checkpoints', 'step-best'));
    expect((await latestCheckpoint(out)).checkpoint?.step).toBe(100);
  });

  it('passes over broken ones and says why', async () => {
    for (const step of [1, 2, 3, 4, 5, 6, 7]) await save(step);
    const at = (step: number, name: string) => join(checkpointPath(out, step), name);
    rmSync(at(7, 'state.json'));
    writeFileSync(at(6, 'state.json'), '{"formatVersion":1,');
    rmSync(at(5, 'optimizer.safetensors'));
    writeFileSync(at(4, 'optimizer.safetensors'), 'short');
    flipByte(at(3, 'optimizer.safetensors'), 17);
    writeFileSync(at(2, 'state.json'), readFileSync(at(1, 'state.json')));
    const { checkpoint, skipped } = await latestCheckpoint(out);
    expect(checkpoint).toMatchObject({ step: 1, path: checkpointPath(out, 1), record: { stage: 'sft' } });
    expect(skipped.map(({ path }) => basename(path))).toEqual([
      'step-7',
      'step-6',
      'step-5',
      'step-4',
      'step-3',
      'step-2',
    ]);
    const problems = ['missing', 'not JSON', 'missing', '5 bytes instead of 300', 'SHA-256', 'of step 1'];
    for (const [i, problem] of problems.entries()) expect(skipped[i]!.reason).toContain(problem);
  });

  it('passes over one whose best checkpoint no longer stands', async () => {
    await save(1, 1);
    await save(2, 2);
    await save(3, 2);
    flipByte(join(checkpointPath(out, 2), 'optimizer.safetensors'), 5);
    const { checkpoint, skipped } = await latestCheckpoint(out);
    expect(checkpoint?.step).toBe(1);
    expect(skipped.map(({ step }) => step)).toEqual([3, 2]);
    expect(skipped[0]!.reason).toMatch(/its best checkpoint.*step-2.*SHA-256/);
  });

  it('refuses one that a newer version wrote, which is not broken', async () => {
    await save(1);
    await save(2);
    const path = join(checkpointPath(out, 2), 'state.json');
    rewriteRecord(path, { formatVersion: 2 });
    await expect(latestCheckpoint(out)).rejects.toMatchObject({
      code: 'checkpoint.newer',
      where: path,
      message: expect.stringContaining('its format is 2, this version reads 1') as string,
    });
  });
});

describe('pruneCheckpoints', () => {
  it('keeps the newest, and what was the best for each of them', async () => {
    await save(1);
    await save(2, 2);
    await save(3, 2);
    await save(4, 2);
    await save(5, 5);
    const removed = await pruneCheckpoints(out, 2);
    expect(removed.map((path) => basename(path))).toEqual(['step-3', 'step-1']);
    expect(steps()).toEqual(['step-2', 'step-4', 'step-5']);
    await save(6, 5);
    await pruneCheckpoints(out, 2);
    expect(steps()).toEqual(['step-5', 'step-6']);
    expect(readdirSync(join(out, 'checkpoints'))).toHaveLength(2);
  });

  it('never removes the last whole one, however many broken ones are newer', async () => {
    for (const step of [1, 2, 3]) await save(step);
    for (const step of [2, 3]) flipByte(join(checkpointPath(out, step), 'optimizer.safetensors'), 0);
    await pruneCheckpoints(out, 1);
    expect((await latestCheckpoint(out)).checkpoint?.step).toBe(1);
    await save(4);
    await pruneCheckpoints(out, 1);
    expect(steps()).toEqual(['step-4']);
  });

  it('wants at least one', async () => {
    await expect(pruneCheckpoints(out, 0)).rejects.toThrow('At least one');
  });
});
