import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { writeFileAtomic } from './atomic.js';
import { errnoOf, writeFault } from './file-faults.js';
import { type CheckpointRef, findCheckpoint, listCheckpoints, reasonBroken } from './checkpoints.js';

const bestSchema = z.object({ step: z.int().nonnegative(), metric: z.string(), value: z.number() });

/** Which checkpoint is the best so far, and by which metric with what value. */
export type Best = z.infer<typeof bestSchema>;

function bestPath(out: string): string {
  return join(out, 'checkpoints', 'best.json');
}

/** Marks the checkpoint of `best.step` as the best, in `checkpoints/best.json`; it is kept until another is marked. */
export async function markBest(out: string, best: Best): Promise<void> {
  if (findCheckpoint(out, best.step) === undefined) throw new Error(`No checkpoint of step ${best.step} to mark`);
  await writeFileAtomic(bestPath(out), `${JSON.stringify(bestSchema.parse(best))}\n`);
}

/** The mark and the checkpoint it names; undefined if nothing is marked or the marked one is not whole. */
export async function bestCheckpoint(out: string): Promise<(Best & CheckpointRef) | undefined> {
  const best = await readBest(out);
  if (best === undefined) return undefined;
  const checkpoint = findCheckpoint(out, best.step);
  if (checkpoint === undefined || (await reasonBroken(checkpoint, 'content')) !== undefined) return undefined;
  return { ...best, ...checkpoint };
}

async function readBest(out: string): Promise<Best | undefined> {
  let text: string;
  try {
    text = await readFile(bestPath(out), 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return bestSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new UserError({
      code: 'checkpoint.best',
      message: `Not a mark of the best checkpoint: ${JSON.stringify(text.slice(0, 80))}.`,
      where: bestPath(out),
      fix: 'Remove the file; the next evaluation marks the best anew.',
      cause: error,
    });
  }
}

/** Removes a mark on a step after `step`: a run that resumes there will make that step again. */
export async function forgetBestAfter(out: string, step: number): Promise<void> {
  const best = await bestCheckpoint(out);
  if (best === undefined || best.step > step) await rm(bestPath(out), { force: true });
}

/**
 * Removes old checkpoints so that the newest `keep` whole ones stay, and always the best. Before anything is removed the
 * newest are read back until one proves whole; of the others the sizes must do. Broken ones older than that are
 * removed; newer ones are left for a person to look at.
 *
 * @returns the paths removed
 */
export async function pruneCheckpoints(out: string, keep: number): Promise<string[]> {
  if (!(keep >= 1)) throw new RangeError(`At least one checkpoint must be kept, not ${keep}`);
  const best = await readBest(out);
  const removed: string[] = [];
  let kept = 0;
  for (const checkpoint of (await listCheckpoints(out)).reverse()) {
    const reason = await reasonBroken(checkpoint, kept === 0 ? 'content' : 'sizes');
    if (reason === undefined && kept < keep) kept += 1;
    else if (kept > 0 && checkpoint.step !== best?.step) removed.push(checkpoint.path);
  }
  for (const path of removed) {
    try {
      await rm(path, { recursive: true, force: true });
    } catch (error) {
      throw writeFault(error, path);
    }
  }
  return removed;
}
