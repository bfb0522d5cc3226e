import { readdir, readFile, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { errnoOf } from './file-faults.js';
import { sha256, sha256File } from './hash.js';

export const STATE_FILE = 'state.json';

const fileSchema = z.object({ bytes: z.int().nonnegative(), sha256: z.string() });

/** The newest layout of `state.json` that this version reads. */
export const FORMAT_VERSION = 1;

const bestSchema = z.object({ step: z.int().nonnegative(), metric: z.string(), value: z.number() });

/** Which checkpoint is the best so far, and by which metric with what value. */
export type Best = z.infer<typeof bestSchema>;

const recordSchema = z.object({
  formatVersion: z.literal(FORMAT_VERSION),
  stage: z.string(),
  step: z.int().nonnegative(),
  /** The best checkpoint up to this one, which may be this one; it is kept as long as this one is. */
  best: bestSchema.nullable().default(null),
  /** Step of the checkpoint that a rollback goes back to, kept in the same way. */
  anchor: z.int().nonnegative().nullable().default(null),
  /** What identifies the inputs of the run that made it, as its manifest has it. */
  fingerprints: z.record(z.string(), z.string()).optional(),
  /** What the stage needs beside its tensors; the stage's own schema says what. */
  state: z.unknown(),
  /** Every other file of the folder: its size and SHA-256. */
  files: z.record(z.string(), fileSchema),
});

/** The content of `state.json`, which makes a folder of tensors a checkpoint. */
export type CheckpointRecord = z.infer<typeof recordSchema>;

/** The text of `state.json`: the record and the SHA-256 of its compact JSON. */
export function encodeRecord(record: Readonly<Record<keyof CheckpointRecord, unknown>>): string {
  return `${JSON.stringify({ ...record, sha256: sha256(JSON.stringify(record)) }, undefined, 2)}\n`;
}

/** Size and SHA-256 of every file in and below `folder`, by its path from there with `/` between names. */
export async function describeFiles(folder: string): Promise<CheckpointRecord['files']> {
  const files: CheckpointRecord['files'] = {};
  for (const name of (await readdir(folder, { recursive: true })).sort()) {
    const path = join(folder, name);
    const found = await stat(path);
    if (!found.isFile()) continue;
    files[name.split(sep).join('/')] = { bytes: found.size, sha256: await sha256File(path) };
  }
  return files;
}

/**
 * Reads `state.json` of a checkpoint folder and compares every file with what it says: sizes, and with `content` also
 * the bytes.
 *
 * @throws UserError `checkpoint.broken` naming the file and what is wrong with it, `checkpoint.newer` where a newer
 *   version of the software wrote it
 */
export async function verifyRecord(folder: string, depth: 'sizes' | 'content'): Promise<CheckpointRecord> {
  const record = await readRecord(join(folder, STATE_FILE));
  for (const [name, expected] of Object.entries(record.files)) {
    const path = join(folder, name);
    const bytes = await sizeOf(path);
    if (bytes === undefined) throw broken(path, 'the file is missing');
    if (bytes !== expected.bytes) throw broken(path, `the file has ${bytes} bytes instead of ${expected.bytes}`);
    if (depth === 'content' && (await sha256File(path)) !== expected.sha256) {
      throw broken(path, 'the content does not match its SHA-256');
    }
  }
  return record;
}

async function readRecord(path: string): Promise<CheckpointRecord> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw broken(path, 'the file is missing');
    throw error;
  }
  const parsed = z.record(z.string(), z.unknown()).safeParse(jsonOrUndefined(text));
  if (!parsed.success) throw broken(path, 'the file is not JSON');
  const { sha256: expected, ...rest } = parsed.data;
  if (sha256(JSON.stringify(rest)) !== expected) throw broken(path, 'the content does not match its SHA-256');
  const version = z.int().safeParse(rest['formatVersion']);
  if (version.success && version.data > FORMAT_VERSION) throw newer(path, version.data);
  const record = recordSchema.safeParse(rest);
  if (!record.success) throw broken(path, z.prettifyError(record.error));
  return record.data;
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function jsonOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function broken(where: string, problem: string): UserError {
  return new UserError({
    code: 'checkpoint.broken',
    message: `The checkpoint is broken: ${problem}.`,
    where,
    fix: 'Resume from an earlier checkpoint: remove this folder and pass --resume.',
  });
}

function newer(where: string, version: number): UserError {
  return new UserError({
    code: 'checkpoint.newer',
    message: `The checkpoint was written by a newer version of duanzi: its format is ${version}, this version reads ${FORMAT_VERSION}.`,
    where,
    fix: 'Resume with the version that wrote it (manifest.json names it), or choose another --out.',
  });
}
