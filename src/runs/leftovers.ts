import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoOf, writeFault } from './file-faults.js';
import { isRunning } from './process-identity.js';

/** `tmp`: being written, of no use after a crash. `old`: a whole folder moved aside for the moment of its replacement. */
type Kind = 'tmp' | 'old';

const NAME = /^\.(?<target>.+)\.(?<kind>tmp|old)-(?<pid>\d+)-[0-9a-f]{8}$/;

/** Temporary paths that this process is working on at the moment. */
const inUse = new Set<string>();

/**
 * A path beside `target` that is recognisable as a left-over should this process die:
 * `.NAME.tmp-PID-RANDOM`. Claimed until `release`.
 */
export function claimTemporary(target: string, kind: Kind): string {
  const name = `.${basename(target)}.${kind}-${process.pid}-${randomBytes(4).toString('hex')}`;
  const path = join(dirname(target), name);
  inUse.add(path);
  return path;
}

/**
 * A path of the same kind whose name all processes agree on that have the same `key`, 8 hexadecimal digits, in mind: it is
 * tidied away by who has the folder locked.
 */
export const agreedTemporary = (target: string, key: string): string =>
  join(dirname(target), `.${basename(target)}.tmp-0-${key}`);

/** Ends a claim, after the path was renamed or removed. */
export function release(path: string): void {
  inUse.delete(path);
}

/** Whether a file name is one that `claimTemporary` gives. */
export function isTemporaryName(name: string): boolean {
  return NAME.test(name);
}

/**
 * Tidies the folder `path` (not what is below it) after a process died while writing in it: unfinished files and folders are
 * removed, and a folder that was moved aside but not yet replaced is put back, so that a whole one stands under its
 * name. What a running process still works on is left alone, unless the folder is locked for this process.
 *
 * @returns the names under which something was put back
 */
export async function recoverLeftovers(path: string, { locked = false } = {}): Promise<string[]> {
  const folder = resolve(path);
  const restored: string[] = [];
  for (const entry of await entriesOf(folder)) {
    const { target, kind, pid } = NAME.exec(entry)?.groups ?? {};
    const leftover = join(folder, entry);
    if (target === undefined || inUse.has(leftover)) continue;
    try {
      if (kind === 'old' && !existsSync(join(folder, target))) {
        // Also when the owner's number belongs to a running process: in containers numbers repeat after a restart.
        await rename(leftover, join(folder, target));
        restored.push(target);
      } else if (locked || Number(pid) === process.pid || !isRunning(Number(pid))) {
        await rm(leftover, { recursive: true, force: true });
      }
    } catch (error) {
      throw writeFault(error, leftover);
    }
  }
  return restored;
}

async function entriesOf(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
