import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { rewriteRecord } from '../../tests/support/rewrite-record.js';
import { checkpointPath, loadCheckpoint } from './checkpoints.js';
import { Interrupted, type StageEvent } from './events.js';
import { changedKeys, isFinished, readManifest } from './manifest.js';
import { readMetrics } from './metrics.js';
import { memoryKills, ownIdentity } from './process-identity.js';
import { openRunFolder, type RunRequest } from './run-folder.js';
import { readEvents, readScalars } from './tensorboard/reader.js';

let base: string;
let out: string;
let events: StageEvent[];
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'duanzi-run-'));
  out = join(base, 'runs', 'sft');
  events = [];
});
afterEach(() => {
  rmSync(base, { recursive: true, force: true });
});

const open = (changes: Partial<RunRequest> = {}) =>
  openRunFolder({
    out,
    stage: 'sft',
    config: { learningRate: 2e-5, lora: { r: 16, dropout: undefined } },
    seed: 7,
    threads: 2,
    device: 'cpu',
    resume: false,
    fingerprints: { 'sft_train.csv': 'sha256:00' },
    onEvent: (event) => events.push(event),
    ...changes,
  });

const schema = z.object({ loss: z.number() });
type Run = Awaited<ReturnType<typeof open>>;

const save = (run: Run, step: number) =>
  run.saveCheckpoint({
    step,
    state: { loss: step },
    schema,
    write: (folder) => {
      writeFileSync(join(folder, 'adapter.safetensors'), `weights ${step}`);
      return Promise.resolve();
    },
  });

function log(run: Run, step: number): void {
  run.emit({ type: 'metrics', step, epoch: step / 10, values: { loss: 1 / step } });
  run.lines('rollouts.jsonl').append({ step, completion: `笑话 ${step}` });
}

const snapshot = () =>
  readdirSync(out, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => [entry.name, readFileSync(join(entry.parentPath, entry.name), 'utf8')]);

const warnings = () => events.flatMap((event) => (event.type === 'warning' ? [event.code] : []));

describe('a new run', () => {
  it('writes the manifest first: what, with what, from what', async () => {
    (await open()).close();
    const manifest = await readManifest(out);
    expect(manifest).toMatchObject({
      stage: 'sft',
      config: { learningRate: 2e-5, lora: { r: 16 } },
      seed: 7,
      threads: 2,
      device: 'cpu',
      fingerprints: { 'sft_train.csv': 'sha256:00' },
      resumedAt: [],
      finishedAt: null,
    });
    const version = (path: string) => (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version;
    const root = new URL('../../', import.meta.url).pathname;
    expect(manifest?.versions).toEqual({
      duanzi: version(join(root, 'package.json')),
      node: process.versions.node,
      onnxruntime: version(join(root, 'node_modules/onnxruntime-node/package.json')),
    });
    expect(readdirSync(out)).toEqual(['manifest.json']);
    expect(events).toEqual([]);
  });

  it('records metrics, samples and rows, passes events on, and ends finished', async () => {
    const run = await open();
    log(run, 1);
    run.emit({ type: 'sample', step: 1, label: 'headline', prompt: '标题：x', completion: '哈', reward: 0.5 });
    await save(run, 1);
    expect(await isFinished(out)).toBe(false);
    await run.finish();
    expect(await isFinished(out)).toBe(true);
    expect(readMetrics(run.file('metrics.jsonl'))).toEqual([{ step: 1, epoch: 0.1, values: { loss: 1 } }]);
    expect(readFileSync(run.file('rollouts.jsonl'), 'utf8')).toBe('{"step":1,"completion":"笑话 1"}\n');
    const [file] = readdirSync(join(out, 'tensorboard'));
    const recorded = readEvents(join(out, 'tensorboard', file!)).events;
    expect(recorded.flatMap(({ values }) => values)).toEqual([
      { kind: 'scalar', tag: 'loss', value: 1 },
      {
        kind: 'text',
        tag: 'samples/headline/text_summary',
        plugin: 'text',
        shape: [1],
        texts: ['标题：x\n\n---\n\n哈\n\nreward: 0.5'],
      },
    ]);
    expect(events.map(({ type }) => type)).toEqual(['metrics', 'sample', 'checkpoint', 'end']);
  });

  it('shows metrics in both files at once, while the run goes on', async () => {
    const run = await open();
    log(run, 1);
    expect(readMetrics(run.file('metrics.jsonl'))).toHaveLength(1);
    expect(readScalars(run.file('tensorboard')).get('loss')).toHaveLength(1);
    run.close();
  });

  it('goes into an empty folder, also one where a crash left an unfinished manifest', async () => {
    mkdirSync(out, { recursive: true });
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    writeFileSync(join(out, `.manifest.json.tmp-${pid}-0123abcd`), '{');
    (await open()).close();
    expect(readdirSync(out)).toEqual(['manifest.json']);
  });
});

describe('a folder that holds something', () => {
  it('is refused without --resume, and nothing in it changes', async () => {
    const run = await open();
    log(run, 1);
    await run.finish();
    const before = snapshot();
    const refusal = {
      code: 'run.not-empty',
      exitCode: 2,
      where: out,
      fix: expect.stringContaining('--resume') as string,
    };
    await expect(open()).rejects.toMatchObject(refusal);
    expect(snapshot()).toEqual(before);
  });

  it('is refused with --resume where it is no run', async () => {
    mkdirSync(out, { recursive: true });
    writeFileSync(join(out, 'thesis.doc'), 'mine');
    await expect(open({ resume: true })).rejects.toMatchObject({ code: 'run.not-empty', fix: 'Choose another --out.' });
    expect(readdirSync(out)).toEqual(['thesis.doc']);
  });

  it.each([
    ['stage', { stage: 'rm' }, 'a run of sft, not of rm'],
    ['seed', { seed: 8 }, 'seed 7, not 8'],
    ['data', { fingerprints: { 'sft_train.csv': 'sha256:01' } }, 'sft_train.csv changed'],
    ['inputs', { fingerprints: { 'sft_train.csv': 'sha256:00', model: 'x' } }, 'model changed'],
  ])('is refused with --resume where the %s is another', async (_, changes, message) => {
    (await open()).close();
    const before = snapshot();
    const refusal = { code: 'run.other', message: expect.stringContaining(message) as string };
    await expect(open({ resume: true, ...changes })).rejects.toMatchObject(refusal);
    expect(snapshot()).toEqual(before);
  });

  it('is refused with --resume where its manifest is damaged', async () => {
    (await open()).close();
    writeFileSync(join(out, 'manifest.json'), '{"stage":"sft"}');
    await expect(open({ resume: true })).rejects.toMatchObject({ code: 'run.manifest', exitCode: 2 });
  });

  it('is refused with --resume where a newer version wrote it', async () => {
    (await open()).close();
    const path = join(out, 'manifest.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as object;
    writeFileSync(path, JSON.stringify({ ...manifest, formatVersion: 2, versions: { duanzi: '9.0.0' } }));
    const before = snapshot();
    await expect(open({ resume: true })).rejects.toMatchObject({
      code: 'run.newer',
      message: expect.stringContaining('newer version of duanzi (9.0.0)') as string,
    });
    expect(snapshot()).toEqual(before);
  });

  it('is refused where a file stands in its place', async () => {
    mkdirSync(join(base, 'runs'));
    writeFileSync(out, 'a file');
    await expect(open()).rejects.toMatchObject({ code: 'file.unwritable', exitCode: 2 });
    await expect(open({ out: join(out, 'below') })).rejects.toMatchObject({ code: 'file.unwritable' });
    expect(readFileSync(out, 'utf8')).toBe('a file');
  });
});

describe('a resumed run', () => {
  async function crashAt7(): Promise<void> {
    const run = await open();
    for (let step = 1; step <= 7; step++) {
      log(run, step);
      if (step % 2 === 0) await save(run, step);
    }
    run.close();
    appendFileSync(join(out, 'metrics.jsonl'), '{"step":8,"epo');
  }

  it('goes on from the newest checkpoint, with no step twice and none missing', async () => {
    await crashAt7();
    const run = await open({ resume: true });
    expect(run.resumeFrom).toEqual({ step: 6, path: checkpointPath(out, 6) });
    const { state } = await loadCheckpoint(run.resumeFrom!.path, { stage: 'sft', schema });
    expect(state).toEqual({ loss: 6 });
    for (const step of [7, 8]) log(run, step);
    await run.finish();
    const steps = [1, 2, 3, 4, 5, 6, 7, 8];
    expect(readMetrics(run.file('metrics.jsonl')).map(({ step }) => step)).toEqual(steps);
    expect(
      readScalars(run.file('tensorboard'))
        .get('loss')
        ?.map(({ step }) => step),
    ).toEqual(steps);
    expect(readFileSync(run.file('rollouts.jsonl'), 'utf8').trim().split('\n')).toHaveLength(8);
    expect(run.manifest.resumedAt).toHaveLength(1);
    expect(warnings()).toEqual([]);
  });

  it('passes over a damaged checkpoint and says so', async () => {
    await crashAt7();
    writeFileSync(join(checkpointPath(out, 6), 'adapter.safetensors'), 'weights 9');
    const run = await open({ resume: true });
    expect(run.resumeFrom?.step).toBe(4);
    expect(readMetrics(run.file('metrics.jsonl'))).toHaveLength(4);
    expect(readFileSync(run.file('rollouts.jsonl'), 'utf8').trim().split('\n')).toHaveLength(4);
    expect(warnings()).toEqual(['run.broken-checkpoint']);
    expect(readdirSync(run.file('checkpoints')).sort()).toEqual(['broken-step-6', 'step-2', 'step-4']);
    run.close();
  });

  it.each([
    ['a newer version', 'checkpoint.newer', { formatVersion: 2 }],
    ['another stage', 'checkpoint.stage', { stage: 'grpo' }],
    ['another model', 'checkpoint.inputs', { fingerprints: { 'sft_train.csv': 'sha256:00', model: 'other' } }],
  ])('refuses a checkpoint of %s, and nothing changes', async (_, code, changes) => {
    await crashAt7();
    rewriteRecord(join(checkpointPath(out, 6), 'state.json'), changes);
    const before = snapshot();
    await expect(open({ resume: true })).rejects.toMatchObject({ code, exitCode: 2 });
    expect(snapshot()).toEqual(before);
  });

  it('starts over without a whole checkpoint, and says so', async () => {
    const first = await open();
    log(first, 1);
    first.close();
    const run = await open({ resume: true });
    expect(run.resumeFrom).toBeUndefined();
    expect(warnings()).toEqual(['run.starts-over']);
    log(run, 1);
    run.close();
    expect(readMetrics(run.file('metrics.jsonl'))).toHaveLength(1);
    expect(readScalars(run.file('tensorboard')).get('loss')).toHaveLength(1);
  });

  it('starts where there is nothing yet, and says so', async () => {
    const run = await open({ resume: true });
    expect(run.resumeFrom).toBeUndefined();
    expect(warnings()).toEqual(['run.starts-over']);
    run.close();
  });

  it('puts back what a crash left between two renames, and removes what it left unfinished', async () => {
    await crashAt7();
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    mkdirSync(join(out, `.adapter.old-${pid}-0123abcd`));
    mkdirSync(join(out, 'checkpoints', `.step-8.tmp-${pid}-0123abcd`));
    const run = await open({ resume: true });
    expect(existsSync(run.file('adapter'))).toBe(true);
    expect(readdirSync(run.file('checkpoints')).sort()).toEqual(['step-2', 'step-4', 'step-6']);
    run.close();
  });

  it('asks for --force where the configuration changed, and names what did', async () => {
    await crashAt7();
    const before = snapshot();
    const config = { learningRate: 1e-5, lora: { r: 8 }, resume: true, force: true, out: 'elsewhere' };
    const list = 'learningRate 0.00002 → 0.00001, lora.r 16 → 8';
    await expect(open({ resume: true, config })).rejects.toMatchObject({
      code: 'run.changed-config',
      message: `The run was begun with other settings: ${list}. Nothing was overwritten.`,
      fix: expect.stringContaining('--force') as string,
    });
    expect(snapshot()).toEqual(before);
    const run = await open({ resume: true, config, force: true });
    const message = `Resumed with another configuration: ${list}.`;
    expect(events).toContainEqual({ type: 'warning', code: 'run.changed-config', message });
    expect((await readManifest(out))?.config).toEqual(config);
    run.close();
  });

  it('is no longer finished until it ends again', async () => {
    await (await open()).finish();
    const run = await open({ resume: true });
    expect(await isFinished(out)).toBe(false);
    await run.finish();
    expect(await isFinished(out)).toBe(true);
  });
});

describe('saveCheckpoint of a run', () => {
  it('keeps as many as asked, and the best', async () => {
    const run = await open();
    const write = () => Promise.resolve();
    for (let step = 1; step <= 5; step++) {
      const retention = { keep: 2, best: step < 2 ? undefined : { step: 2, metric: 'eval_loss', value: 0.1 } };
      await run.saveCheckpoint({ step, state: { loss: step }, schema, write }, retention);
    }
    expect(readdirSync(run.file('checkpoints')).sort()).toEqual(['step-2', 'step-4', 'step-5']);
    run.close();
  });
});

describe('isFinished', () => {
  it('is false where there is no run', async () => {
    expect(await isFinished(out)).toBe(false);
  });
});

describe('changedKeys', () => {
  it('gives dotted keys, compares lists as a whole and takes undefined as absent', () => {
    const before = { a: 1, b: { c: [1, 2], d: null }, e: undefined };
    expect(changedKeys(before, { a: 1, b: { c: [1, 2], d: null } })).toEqual([]);
    expect(changedKeys(before, { a: '1', b: { c: [2, 1], d: {} }, f: 0 })).toEqual(['a', 'b.c', 'b.d', 'f']);
  });
});

describe('Interrupted', () => {
  it('carries where to resume and the exit code of an interruption', () => {
    const error = new Interrupted('runs/sft', 12);
    expect(error).toMatchObject({ exitCode: 130, runFolder: 'runs/sft', step: 12, name: 'Interrupted' });
    expect(error.message).toContain('--resume');
  });
});

describe('a run whose process died', () => {
  /** Leaves the lock of a process that died, in whose time the system killed so many for want of memory. */
  const die = (killed: number): void => {
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    const since = '2026-01-01T00:00:00.000Z';
    const holder = { ...ownIdentity(), pid, token: 'its own', since, memoryKills: memoryKills()! - killed };
    writeFileSync(join(out, '.lock'), JSON.stringify(holder));
  };

  it('while the system killed for want of memory goes on with half as many samples at once, and says so once', async () => {
    (await open({ batchSize: 8 })).close();
    die(1);
    const resumed = await open({ batchSize: 8, resume: true });
    expect(resumed.microBatch(8)).toBe(4);
    resumed.close();
    expect(warnings().filter((code) => code === 'memory.smaller-batches')).toHaveLength(1);
    const { microBatch, interventions } = (await readManifest(out))!;
    expect(microBatch).toBe(4);
    expect(interventions).toMatchObject([{ step: null, code: 'memory.smaller-batches' }]);

    // It ends of something else, and is gone on with once more.
    const again = await open({ batchSize: 8, resume: true });
    expect(again.microBatch(8)).toBe(4);
    again.close();
    expect(warnings().filter((code) => code === 'memory.smaller-batches')).toHaveLength(1);
  });

  it('of anything else, or that one sample at a time killed, goes on as it was', async () => {
    (await open({ batchSize: 8 })).close();
    die(0);
    const resumed = await open({ batchSize: 8, resume: true });
    expect(resumed.microBatch(8)).toBe(8);
    resumed.close();
    die(2);
    const single = await open({ batchSize: 1, resume: true });
    expect(single.microBatch(1)).toBe(1);
    single.close();
    expect(warnings()).not.toContain('memory.smaller-batches');
  });

  it('is refused for another stage as it was, and nothing in it changes', async () => {
    (await open({ batchSize: 8 })).close();
    die(1);
    const before = snapshot();
    await expect(open({ batchSize: 8, resume: true, stage: 'rm' })).rejects.toMatchObject({ code: 'run.other' });
    expect(snapshot()).toEqual(before);
  });
});
