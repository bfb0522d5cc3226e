import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { UserError } from '../errors.js';
import { type CheckpointRef, latestCheckpoint } from './checkpoints.js';
import { errnoOf, writeFault } from './file-faults.js';
import { isTemporaryName, recoverLeftovers } from './leftovers.js';
import { changedKeys, type Manifest, manifestPath, readManifest } from './manifest.js';
import { readVersions } from './versions.js';

/** What a stage says about the run that it is about to begin or resume. */
export interface RunRequest {
  /** The folder, relative to the working directory or absolute. */
  out: string;
  stage: string;
  /** The resolved configuration of the stage, defaults included. */
  config: Record<string, unknown>;
  seed: number;
  /** Threads given to the runtime; undefined leaves the number to it. */
  threads?: number | undefined;
  device: string;
  resume: boolean;
  /** Name of an input → what identifies its content; a resumed run must be given the same. */
  fingerprints: Record<string, string>;
}

/** Keys that say where a run is written and whether it goes on, and so nothing about what it computes. */
const ABOUT_THE_FOLDER: ReadonlySet<string> = new Set(['out', 'resume']);

/** What `prepareFolder` found: whether there is a run to go on with, and from where. */
export interface Preparation {
  manifest: Manifest;
  resumed: boolean;
  checkpoint: CheckpointRef | undefined;
  warnings: { code: string; message: string }[];
}

/**
 * Decides whether `request` may write to its folder and where it begins. Changes nothing in a folder that it refuses;
 * tidies what a crash left in one that it accepts.
 */
export async function prepareFolder(request: RunRequest): Promise<Preparation> {
  const out = resolve(request.out);
  const occupied = (await entries(out)).length > 0;
  const now = new Date().toISOString();
  if (!occupied) {
    await recoverLeftovers(out);
    const warnings = request.resume ? [startsOver(out, 'the folder is new')] : [];
    return { manifest: newManifest(request, now), resumed: false, checkpoint: undefined, warnings };
  }
  if (!request.resume) throw notEmpty(request.out);

  const earlier = await readManifest(out);
  if (earlier === undefined) throw notARun(request.out);
  assertSameRun(earlier, request);
  await recoverLeftovers(out);
  await recoverLeftovers(join(out, 'checkpoints'));

  const warnings: Preparation['warnings'] = [];
  const { checkpoint, skipped } = await latestCheckpoint(out);
  for (const { reason } of skipped) warnings.push({ code: 'run.broken-checkpoint', message: `Passed over: ${reason}` });
  if (checkpoint === undefined) warnings.push(startsOver(out, 'it holds no whole checkpoint'));
  const changed = changedKeys(earlier.config, request.config).filter((key) => !ABOUT_THE_FOLDER.has(key));
  if (changed.length > 0) {
    warnings.push({
      code: 'run.changed-config',
      message: `Resumed with another configuration: ${changed.join(', ')}.`,
    });
  }
  const manifest = {
    ...newManifest(request, earlier.startedAt),
    resumedAt: [...earlier.resumedAt, now],
  };
  return { manifest, resumed: true, checkpoint, warnings };
}

function newManifest(request: RunRequest, startedAt: string): Manifest {
  const { stage, config, seed, threads, device, fingerprints } = request;
  return {
    formatVersion: 1,
    stage,
    config,
    seed,
    threads: threads ?? null,
    device,
    versions: readVersions(),
    fingerprints,
    startedAt,
    resumedAt: [],
    finishedAt: null,
  };
}

/** What stands in the folder, apart from what a crash before the first file left. */
async function entries(out: string): Promise<string[]> {
  try {
    return (await readdir(out)).filter((name) => !isTemporaryName(name));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw writeFault(error, out);
  }
}

function assertSameRun(earlier: Manifest, { out, stage, seed, fingerprints }: RunRequest): void {
  if (earlier.stage !== stage) throw otherRun(out, `The folder holds a run of ${earlier.stage}, not of ${stage}.`);
  if (earlier.seed !== seed) throw otherRun(out, `The run was begun with seed ${earlier.seed}, not ${seed}.`);
  const names = new Set([...Object.keys(earlier.fingerprints), ...Object.keys(fingerprints)]);
  const changed = [...names].filter((name) => !isDeepStrictEqual(earlier.fingerprints[name], fingerprints[name]));
  if (changed.length > 0)
    throw otherRun(out, `The run was begun with other inputs: ${changed.sort().join(', ')} changed.`);
}

function startsOver(out: string, why: string): { code: string; message: string } {
  return { code: 'run.starts-over', message: `Nothing to resume in ${out}: ${why}. Starting from step 0.` };
}

function notEmpty(out: string): UserError {
  return new UserError({
    code: 'run.not-empty',
    message: 'The output folder is not empty; nothing was overwritten.',
    where: out,
    fix: 'Choose another --out, or pass --resume to go on with the run in it.',
  });
}

function notARun(out: string): UserError {
  return new UserError({
    code: 'run.not-empty',
    message: `The output folder is not empty and holds no run: ${manifestPath(out)} is missing. Nothing was overwritten.`,
    where: out,
    fix: 'Choose another --out.',
  });
}

function otherRun(out: string, message: string): UserError {
  return new UserError({
    code: 'run.other',
    message: `${message} Nothing was overwritten.`,
    where: out,
    fix: 'Choose another --out, or resume with what the run was begun with.',
  });
}
