import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { UserError } from '../errors.js';
import { assertStage, type CheckpointRef, latestCheckpoint, type LatestCheckpoint } from './checkpoints.js';
import { errnoOf, writeFault } from './file-faults.js';
import { isTemporaryName, recoverLeftovers } from './leftovers.js';
import { type FolderLock, LOCK_FILE, lockFolder } from './lock.js';
import { type Change, changesOf, describeChange, type Manifest, manifestPath, readManifest } from './manifest.js';
import { halvedBatches } from './smaller-batches.js';
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
  /** Resumes also where the configuration is another than that of the run so far. */
  force?: boolean;
  /** Samples that go through the model at once, as configured; what is halved after a death for want of memory. */
  batchSize?: number;
  /** Name of an input → what identifies its content; a resumed run must be given the same. */
  fingerprints: Record<string, string>;
}

/** Keys that say where a run is written and whether it goes on, and so nothing about what it computes. */
const ABOUT_THE_FOLDER: ReadonlySet<string> = new Set(['out', 'resume', 'force', 'memory']);

/** What `prepareFolder` found: whether there is a run to go on with, and from where. */
export interface Preparation {
  manifest: Manifest;
  resumed: boolean;
  checkpoint: CheckpointRef | undefined;
  /** Newer checkpoints that are not whole. */
  skipped: readonly CheckpointRef[];
  warnings: { code: string; message: string }[];
  /** The folder is this process's own until it is released. */
  lock: FolderLock;
}

/**
 * Decides whether `request` may write to its folder and where it begins, and locks the folder. Changes nothing in a
 * folder that it refuses; tidies what a crash left in one that it accepts.
 */
export async function prepareFolder(request: RunRequest): Promise<Preparation> {
  // Looked at before and after the lock is taken: what is refused shall not be touched, and until the lock is taken
  // another process may begin.
  await readState(request);
  const lock = lockFolder(request.out);
  try {
    const state = await readState(request);
    return { ...afterDeath(request, lock, await decide(request, state)), lock };
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** What stands in the folder: the run to resume, or undefined where it is empty. */
async function readState(request: RunRequest): Promise<Manifest | undefined> {
  const { out, resume } = request;
  if ((await entries(resolve(out))).length === 0) return undefined;
  if (!resume) throw notEmpty(out);
  const earlier = await readManifest(resolve(out));
  if (earlier === undefined) throw notARun(out);
  assertSameRun(earlier, request);
  return earlier;
}

async function decide(request: RunRequest, earlier: Manifest | undefined): Promise<Omit<Preparation, 'lock'>> {
  const out = resolve(request.out);
  const now = new Date().toISOString();
  if (earlier === undefined) {
    await recoverLeftovers(out);
    const warnings = request.resume ? [startsOver(out, 'the folder is new')] : [];
    return { manifest: newManifest(request, now), resumed: false, checkpoint: undefined, skipped: [], warnings };
  }

  const changes = changesOf(earlier.config, request.config).filter(({ key }) => !ABOUT_THE_FOLDER.has(key));
  if (changes.length > 0 && request.force !== true) throw otherSettings(request.out, changes);
  const checkpoints = join(out, 'checkpoints');
  await recoverLeftovers(checkpoints, { locked: true });
  const { checkpoint, skipped } = await latestCheckpoint(out);
  if (checkpoint !== undefined) assertOwn(checkpoint, request);
  await recoverLeftovers(out);

  const warnings: Preparation['warnings'] = [];
  for (const { reason } of skipped) warnings.push({ code: 'run.broken-checkpoint', message: `Passed over: ${reason}` });
  if (checkpoint === undefined) warnings.push(startsOver(out, 'it holds no whole checkpoint'));
  if (changes.length > 0) {
    const list = changes.map(describeChange).join(', ');
    warnings.push({ code: 'run.changed-config', message: `Resumed with another configuration: ${list}.` });
  }
  const manifest = {
    ...newManifest(request, earlier.startedAt),
    resumedAt: [...earlier.resumedAt, now],
    // Steps after the checkpoint are taken again, and what went wrong in them goes wrong again.
    microBatch: earlier.microBatch,
    interventions: earlier.interventions.filter(({ step }) => step === null || step <= (checkpoint?.step ?? -1)),
  };
  const from = checkpoint === undefined ? undefined : { step: checkpoint.step, path: checkpoint.path };
  return { manifest, resumed: true, checkpoint: from, skipped, warnings };
}

/** Where the run before died for want of memory, the run goes on with half as many samples at once. */
function afterDeath(
  { batchSize }: RunRequest,
  lock: FolderLock,
  prepared: Omit<Preparation, 'lock'>,
): Omit<Preparation, 'lock'> {
  if (!lock.killedForMemory || batchSize === undefined || !prepared.resumed) return prepared;
  const what = 'The run died while the system killed processes for want of memory';
  const halved = halvedBatches(prepared.manifest, batchSize, what);
  if (halved === undefined) return prepared;
  const { code, message } = halved.intervention;
  return { ...prepared, manifest: halved.manifest, warnings: [...prepared.warnings, { code, message }] };
}

/** A checkpoint that somebody put into the folder from another run is not gone on from. */
function assertOwn(
  { path, record }: NonNullable<LatestCheckpoint['checkpoint']>,
  { stage, fingerprints }: RunRequest,
): void {
  assertStage(record, stage, path);
  const changed = changedNames(record.fingerprints ?? fingerprints, fingerprints);
  if (changed.length === 0) return;
  throw new UserError({
    code: 'checkpoint.inputs',
    message: `The checkpoint was made from other inputs than this run: ${changed.join(', ')} differ. Nothing was changed.`,
    where: path,
    fix: 'Remove it from the folder, then pass --resume: an earlier one is taken, or the run starts over.',
  });
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
    microBatch: null,
    interventions: [],
    finishedAt: null,
  };
}

/** What stands in the folder, apart from what a crash before the first file left. */
async function entries(out: string): Promise<string[]> {
  try {
    return (await readdir(out)).filter((name) => name !== LOCK_FILE && !isTemporaryName(name));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw writeFault(error, out);
  }
}

function assertSameRun(earlier: Manifest, { out, stage, seed, fingerprints }: RunRequest): void {
  if (earlier.stage !== stage) throw otherRun(out, `The folder holds a run of ${earlier.stage}, not of ${stage}.`);
  if (earlier.seed !== seed) throw otherRun(out, `The run was begun with seed ${earlier.seed}, not ${seed}.`);
  const changed = changedNames(earlier.fingerprints, fingerprints);
  if (changed.length > 0) throw otherRun(out, `The run was begun with other inputs: ${changed.join(', ')} changed.`);
}

function changedNames(before: Readonly<Record<string, string>>, after: Readonly<Record<string, string>>): string[] {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].filter((name) => before[name] !== after[name]).sort();
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

function otherSettings(out: string, changes: readonly Change[]): UserError {
  return new UserError({
    code: 'run.changed-config',
    message: `The run was begun with other settings: ${changes.map(describeChange).join(', ')}. Nothing was overwritten.`,
    where: out,
    fix: 'Resume with the settings that it was begun with, or pass --force to go on with the new ones.',
  });
}
