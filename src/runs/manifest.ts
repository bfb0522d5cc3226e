import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { writeFileAtomic } from './atomic.js';
import { errnoOf } from './file-faults.js';
import { versionsSchema } from './versions.js';

const timestamp = z.iso.datetime();

const manifestSchema = z.object({
  formatVersion: z.literal(1),
  stage: z.string(),
  /** The resolved configuration: every key, defaults included. */
  config: z.record(z.string(), z.unknown()),
  seed: z.int(),
  threads: z.int().positive().nullable(),
  device: z.string(),
  versions: versionsSchema,
  /** Name of an input (a data file, a model) → what identifies its content, such as a SHA-256. */
  fingerprints: z.record(z.string(), z.string()),
  startedAt: timestamp,
  resumedAt: z.array(timestamp),
  /** Null until the stage is complete. */
  finishedAt: timestamp.nullable(),
});

/** What `manifest.json` of a run folder says: which stage, of what, with what, when. */
export type Manifest = z.infer<typeof manifestSchema>;

export function manifestPath(out: string): string {
  return join(out, 'manifest.json');
}

/**
 * The manifest of a run folder, or undefined where there is none.
 *
 * @throws UserError `run.manifest` where the file is not a manifest
 */
export async function readManifest(out: string): Promise<Manifest | undefined> {
  const path = manifestPath(out);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch (error) {
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
    throw new UserError({
      code: 'run.manifest',
      message: `Not the manifest of a run: ${problem}`,
      where: path,
      fix: 'Choose another --out, or restore the file.',
      cause: error,
    });
  }
}

export async function writeManifest(out: string, manifest: Manifest): Promise<void> {
  await writeFileAtomic(manifestPath(out), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

/** Whether `out` is the run folder of a stage that ran to its end. */
export async function isFinished(out: string): Promise<boolean> {
  const manifest = await readManifest(out);
  return manifest !== undefined && manifest.finishedAt !== null;
}

/**
 * The keys in which two configurations differ, dotted (`lora.r`), sorted. Compared as JSON: a key without a value is
 * the same as none.
 */
export function changedKeys(before: Record<string, unknown>, after: Record<string, unknown>): string[] {
  const changed: string[] = [];
  collectChanges(asJson(before), asJson(after), [], changed);
  return changed.sort();
}

function collectChanges(before: unknown, after: unknown, path: string[], changed: string[]): void {
  if (isSection(before) && isSection(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      collectChanges(before[key], after[key], [...path, key], changed);
    }
  } else if (!isDeepStrictEqual(before, after)) {
    changed.push(path.join('.'));
  }
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function asJson(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
