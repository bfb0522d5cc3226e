import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { writeFileAtomic, writeFolderAtomic } from './atomic.js';
import { errnoOf } from './file-faults.js';
import {
  type Best,
  broken,
  type CheckpointRecord,
  describeFiles,
  encodeRecord,
  FORMAT_VERSION,
  STATE_FILE,
  verifyRecord,
} from './checkpoint-state.js';

/** Where the checkpoint of an optimizer step stands. */
export interface CheckpointRef {
  step: number;
  path: string;
}

/** A checkpoint that was verified and read. */
export interface Checkpoint<State> extends CheckpointRef {
  stage: string;
  state: State;
  /** The path of one of its files. */
  file(name: string): string;
}

/** The newest whole checkpoint, and why newer ones were passed over. */
export interface LatestCheckpoint {
  checkpoint: (CheckpointRef & { readonly record: CheckpointRecord }) | undefined;
  skipped: (CheckpointRef & { reason: string })[];
}

export interface SaveCheckpoint<State> {
  stage: string;
  /** Optimizer steps done. */
  step: number;
  state: State;
  /** What `state` must be again after its way through JSON. */
  schema: z.ZodType<State>;
  /** The best checkpoint so far, which may be this one. */
  best?: Best | undefined;
  /** Step of the checkpoint that a rollback goes back to, which may be this one. */
  anchor?: number | null;
  /** What identifies the inputs of the run. */
  fingerprints?: Readonly<Record<string, string>>;
  /** Writes the tensors, as `.safetensors` files, into `folder`. */
  write: (folder: string) => Promise<void>;
}

const FOLDER_NAME = /^step-(\d+)$/;

export function checkpointPath(out: string, step: number): string {
  return join(out, 'checkpoints', `step-${step}`);
}

/**
 * Writes `checkpoints/step-N/` of the run folder `out`, whole or not at all: the tensor files of `write` and
 * `state.json` with the state and the SHA-256 of every file. One of the same step is replaced.
 *
 * @throws Error if `state` does not survive JSON (NaN, Infinity, undefined where the schema wants a value)
 * @throws UserError if the disk is full or cannot be written
 */
export async function saveCheckpoint<State>(out: string, save: SaveCheckpoint<State>): Promise<CheckpointRef> {
  const { stage, step, write, best = null, anchor = null, fingerprints = {} } = save;
  const path = checkpointPath(out, step);
  const state: unknown = JSON.parse(JSON.stringify(save.state));
  save.schema.parse(state);
  await writeFolderAtomic(path, async (folder) => {
    await write(folder);
    const files = await describeFiles(folder);
    const record = { formatVersion: FORMAT_VERSION, stage, step, best, anchor, fingerprints, state, files } as const;
    await writeFileAtomic(join(folder, STATE_FILE), encodeRecord(record));
  });
  return { step, path };
}

/**
 * Verifies every file of a checkpoint folder and reads its state.
 *
 * @throws UserError `checkpoint.broken` (missing, cut or changed file), `checkpoint.stage` (made by another stage),
 *   `checkpoint.state` (the state is not what `schema` asks for)
 */
export async function loadCheckpoint<State>(
  path: string,
  { stage, schema }: { stage: string; schema: z.ZodType<State> },
): Promise<Checkpoint<State>> {
  const record = await verifyRecord(path, 'content');
  assertStage(record, stage, path);
  const state = schema.safeParse(record.state);
  if (!state.success) {
    throw new UserError({
      code: 'checkpoint.state',
      message: `The state of the checkpoint does not fit this version of ${stage}: ${z.prettifyError(state.error)}`,
      where: join(path, STATE_FILE),
      fix: 'Start over with another --out, or use the version of duanzi that the manifest names.',
    });
  }
  return {
    step: record.step,
    path,
    stage,
    state: state.data,
    file(name) {
      if (!Object.hasOwn(record.files, name)) throw broken(join(path, name), 'the file is missing');
      return join(path, name);
    },
  };
}

/** The checkpoint folders of a run by rising step, whole or not. */
export async function listCheckpoints(out: string): Promise<CheckpointRef[]> {
  const folder = join(out, 'checkpoints');
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
  return names
    .map((name) => ({ step: Number(FOLDER_NAME.exec(name)?.[1] ?? NaN), path: join(folder, name) }))
    .filter(({ step }) => !Number.isNaN(step))
    .sort((a, b) => a.step - b.step);
}

/** @throws UserError `checkpoint.stage` */
export function assertStage(record: CheckpointRecord, stage: string, path: string): void {
  if (record.stage === stage) return;
  throw new UserError({
    code: 'checkpoint.stage',
    message: `The checkpoint was made by ${record.stage}, not by ${stage}. Nothing was changed.`,
    where: path,
    fix: `Remove it from the folder, or give a folder of ${stage}.`,
  });
}

/**
 * Finds the newest checkpoint whose every file is as it was written, and whose best checkpoint is too, passing over
 * broken ones.
 *
 * @throws UserError `checkpoint.newer` for one that a newer version wrote: it is not broken
 */
export async function latestCheckpoint(out: string): Promise<LatestCheckpoint> {
  const skipped: LatestCheckpoint['skipped'] = [];
  for (const checkpoint of (await listCheckpoints(out)).reverse()) {
    const found = await inspect(checkpoint, 'content');
    const { record } = found;
    const reason = record === undefined ? found.reason : await reasonBestBroken(out, checkpoint.step, record);
    if (record !== undefined && reason === undefined) return { checkpoint: { ...checkpoint, record }, skipped };
    skipped.push({ ...checkpoint, reason: reason! });
  }
  return { checkpoint: undefined, skipped };
}

async function reasonBestBroken(out: string, step: number, { best }: CheckpointRecord): Promise<string | undefined> {
  if (best === null || best.step === step) return undefined;
  const { reason } = await inspect({ step: best.step, path: checkpointPath(out, best.step) }, 'content');
  return reason === undefined ? undefined : `step ${step}, as its best checkpoint does not stand: ${reason}`;
}

/**
 * The record of a checkpoint that is whole, or why it is not.
 *
 * @throws UserError `checkpoint.newer`
 */
export async function inspect(
  { step, path }: CheckpointRef,
  depth: 'sizes' | 'content',
): Promise<{ record: CheckpointRecord; reason?: undefined } | { record?: undefined; reason: string }> {
  try {
    const record = await verifyRecord(path, depth);
    return record.step === step ? { record } : { reason: `${path} says that it is of step ${record.step}` };
  } catch (error) {
    if (error instanceof UserError && error.code === 'checkpoint.broken') {
      return { reason: `${error.where ?? path}: ${error.message}` };
    }
    throw error;
  }
}
