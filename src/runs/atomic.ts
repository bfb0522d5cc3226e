import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { UserError } from '../errors.js';
import { errnoOf, writeFault } from './file-faults.js';
import { claimTemporary, release } from './leftovers.js';

/**
 * Writes a file so that a reader finds the old content or the new, never a part, also after a power cut: written
 * beside, synced, renamed. Missing parent folders are made.
 *
 * @throws UserError `file.unwritable` (exit code 2) or `file.disk` (exit code 3); the old content then still stands
 */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const target = resolve(path);
  await writeBeside(target, async (temporary) => {
    const file = await open(temporary, 'wx');
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, target);
  });
}

/**
 * Builds a folder beside its final place, syncs all of it and puts it in place.
 *
 * A folder cannot be renamed over another, so a replacement takes two renames: the old folder aside, the new one in;
 * then the old one is removed. Whoever looks between the two finds neither, for microseconds; if the process dies
 * exactly there, `recoverLeftovers` on the parent puts the old folder back. A folder under its own name is always whole.
 *
 * @param build receives the path to write into; what it throws is passed on and nothing is replaced
 * @throws UserError `file.unwritable` (exit code 2) or `file.disk` (exit code 3)
 */
export async function writeFolderAtomic(path: string, build: (folder: string) => Promise<void>): Promise<void> {
  const target = resolve(path);
  await writeBeside(target, async (temporary) => {
    await mkdir(temporary);
    await build(temporary);
    await syncTree(temporary);
    if (await isFolder(target)) await replaceFolder(target, temporary);
    else await rename(temporary, target);
  });
}

/**
 * Removes a file or folder so that its name goes first: whoever looks finds it whole or not at all.
 *
 * @throws UserError `file.unwritable` (exit code 2) or `file.disk` (exit code 3)
 */
export async function removeAtomic(path: string): Promise<void> {
  const target = resolve(path);
  const temporary = claimTemporary(target, 'tmp');
  try {
    await rename(target, temporary);
    await rm(temporary, { recursive: true, force: true });
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw writeFault(error, target);
  } finally {
    release(temporary);
  }
}

/**
 * Builds a folder that depends on its name alone, such as an entry of a cache, unless it stands already. Of several
 * processes that build it at once the first one's stays, so that nobody who reads it loses it.
 *
 * @throws UserError as {@link writeFolderAtomic}
 */
export async function createFolderAtomic(path: string, build: (folder: string) => Promise<void>): Promise<void> {
  const target = resolve(path);
  if (await isFolder(target)) return;
  await writeBeside(target, async (temporary) => {
    await mkdir(temporary);
    await build(temporary);
    await syncTree(temporary);
    await rename(temporary, target).catch(async (error: unknown) => {
      if (!['ENOTEMPTY', 'EEXIST', 'EPERM'].includes(errnoOf(error) ?? '') || !(await isFolder(target))) throw error;
      await rm(temporary, { recursive: true, force: true });
    });
  });
}

/** Runs `write` on a temporary path beside `target`, which `write` renames; leaves nothing behind on failure. */
async function writeBeside(target: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const parent = dirname(target);
  const temporary = claimTemporary(target, 'tmp');
  try {
    await mkdir(parent, { recursive: true });
    await write(temporary);
    await syncFolder(parent);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw writeFault(error, target);
  } finally {
    release(temporary);
  }
}

async function replaceFolder(target: string, replacement: string): Promise<void> {
  const aside = claimTemporary(target, 'old');
  try {
    await rename(target, aside);
    try {
      await rename(replacement, target);
    } catch (error) {
      await rename(aside, target);
      throw error;
    }
    await syncFolder(dirname(target));
    await rm(aside, { recursive: true, force: true });
  } finally {
    release(aside);
  }
}

async function isFolder(path: string): Promise<boolean> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (found === undefined || found.isDirectory()) return found !== undefined;
  throw new UserError({
    code: 'file.unwritable',
    message: 'Cannot write a folder: a file of that name stands there.',
    where: path,
    fix: 'Move the file away or choose another place.',
  });
}

async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncPath(path);
  }
  await syncFolder(folder);
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes names in a folder durable. Some file systems (network shares, Windows) cannot sync a folder: then it is theirs. */
async function syncFolder(folder: string): Promise<void> {
  try {
    await syncPath(folder);
  } catch (error) {
    if (!['EINVAL', 'EISDIR', 'EPERM', 'ENOTSUP'].includes(errnoOf(error) ?? '')) throw error;
  }
}
