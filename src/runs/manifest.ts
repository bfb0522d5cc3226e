import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { writeFileAtomic } from './atomic.js';
import { errnoOf } from './file-faults.js';
import { versionsSchema } from './versions.js';

/** What of a manifest every later version keeps. */
const header = z.object({ formatVersion: z.int(), versions: z.object({ duanzi: z.string() }).optional() });

const timestamp = z.iso.datetime();

const FORMAT_VERSION = 1;

const interventionSchema = z.object({
  step: z.int().nullable(),
  at: timestamp,
  code: z.string(),
  message: z.string(),
});

/** Something that was done, or should be looked at, in a run that did not go as configured. */
export type Intervention = z.infer<typeof interventionSchema>;

const manifestSchema = z.object({
  formatVersion: z.literal(FORMAT_VERSION),
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
  /** Samples that go through the model at once since memory ran out; null while it suffices. */
  microBatch: z.int().positive().nullable().default(null),
  /** Where training did not go as configured, by rising step; null for what belongs to no step. */
  interventions: z.array(interventionSchema).default([]),
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
 * @throws UserError `run.manifest` where the file is not a manifest, `run.newer` where a newer version wrote it
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
    const content: unknown = JSON.parse(text);
    assertReadable(content, path);
    return manifestSchema.parse(content);
  } catch (error) {
    if (error instanceof UserError) throw error;
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

function assertReadable(content: unknown, where: string): void {
  const found = header.safeParse(content);
  if (!found.success || found.data.formatVersion <= FORMAT_VERSION) return;
  const { formatVersion, versions } = found.data;
  throw new UserError({
    code: 'run.newer',
    message: `The run was written by a newer version of duanzi${versions === undefined ? '' : ` (${versions.duanzi})`}: its format is ${formatVersion}, this version reads ${FORMAT_VERSION}. Nothing was changed.`,
    where,
    fix: 'Use the version that wrote it, or choose another --out.',
  });
}

export async function writeManifest(out: string, manifest: Manifest): Promise<void> {
  await writeFileAtomic(manifestPath(out), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

/** Whether `out` is the run folder of a stage that ran to its end. */
export async function isFinished(out: string): Promise<boolean> {
  const manifest = await readManifest(out);
  return manifest !== undefined && manifest.finishedAt !== null;
}

/** A key in which two configurations differ. */
export interface Change {
  /** Dotted: `lora.r`. */
  readonly key: string;
  readonly before: unknown;
  readonly after: unknown;
}

/** In what two configurations differ, sorted by key. Compared as JSON: a key without a value is the same as none. */
export function changesOf(before: Record<string, unknown>, after: Record<string, unknown>): Change[] {
  return [...differences(asJson(before), asJson(after), [])].sort((a, b) => (a.key < b.key ? -1 : 1));
}

/** The keys of `changesOf`. */
export function changedKeys(before: Record<string, unknown>, after: Record<string, unknown>): string[] {
  return changesOf(before, after).map(({ key }) => key);
}

/** For people: `lora.r 16 → 8`. */
export function describeChange({ key, before, after }: Change): string {
  return `${key} ${describe(before)} → ${describe(after)}`;
}

const LONGEST = 60;

function describe(value: unknown): string {
  if (value === undefined) return '(unset)';
  const text = JSON.stringify(value);
  return text.length <= LONGEST ? text : `${text.slice(0, LONGEST)}…`;
}

function* differences(before: unknown, after: unknown, path: string[]): Generator<Change> {
  if (isSection(before) && isSection(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      yield* differences(before[key], after[key], [...path, key]);
    }
  } else if (!isDeepStrictEqual(before, after)) {
    yield { key: path.join('.'), before, after };
  }
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function asJson(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
