import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { writeFileAtomic, writeFolderAtomic } from './atomic.js';
import { errnoOf } from './file-faults.js';
import { broken, describeFiles, encodeRecord, STATE_FILE, verifyRecord } from './checkpoint-state.js';

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
  checkpoint: CheckpointRef | undefined;
  skipped: { path: string; reason: string }[];
}

export interface SaveCheckpoint<State> {
  stage: string;
  /** Optimizer steps done. */
  step: number;
  state: State;
  /** What `state` must be again after its way through JSON. */
  schema: z.ZodType<State>;
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
  const { stage, step, write } = save;
  const path = checkpointPath(out, step);
  const state: unknown = JSON.parse(JSON.stringify(save.state));
  save.schema.parse(state);
  await writeFolderAtomic(path, async (folder) => {
    await write(folder);
    const files = await describeFiles(folder);
    await writeFileAtomic(join(folder, STATE_FILE), encodeRecord({ formatVersion: 1, stage, step, state, files }));
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
  if (record.stage !== stage) {
    throw new UserError({
      code: 'checkpoint.stage',
      message: `The checkpoint was made by ${record.stage}, not by ${stage}.`,
      where: path,
      fix: `Give a checkpoint of ${stage}.`,
    });
  }
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

/** Finds the newest checkpoint whose every file is as it was written, passing over broken ones. */
export async function latestCheckpoint(out: string): Promise<LatestCheckpoint> {
  const skipped: LatestCheckpoint['skipped'] = [];
  for (const checkpoint of (await listCheckpoints(out)).reverse()) {
    const reason = await reasonBroken(checkpoint, 'content');
    if (reason === undefined) return { checkpoint, skipped };
    skipped.push({ path: checkpoint.path, reason });
  }
  return { checkpoint: undefined, skipped };
}

/** Why a checkpoint is not whole, or undefined if it is. */
export async function reasonBroken(
  { step, path }: CheckpointRef,
  depth: 'sizes' | 'content',
): Promise<string | undefined> {
  try {
    const record = await verifyRecord(path, depth);
    return record.step === step ? undefined : `${path} says that it is of step ${record.step}`;
  } catch (error) {
    if (error instanceof UserError) return `${error.where ?? path}: ${error.message}`;
    throw error;
  }
}

/** The checkpoint that stands there under that step, whole or not. */
export function findCheckpoint(out: string, step: number): CheckpointRef | undefined {
  const path = checkpointPath(out, step);
  return existsSync(path) ? { step, path } : undefined;
}
