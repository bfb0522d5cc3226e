import { randomUUID } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { errnoOf, writeFault } from './file-faults.js';
import { sha256 } from './hash.js';
import { agreedTemporary, claimTemporary, release } from './leftovers.js';
import { fateOf, memoryKills, ownIdentity, processIdentity } from './process-identity.js';

/** Name of the file by which a process says that a folder is its own to write. */
export const LOCK_FILE = '.lock';

/** Milliseconds between two signs of life. */
const SIGN_OF_LIFE = 15_000;
/** Milliseconds without a sign of life after which a process that cannot be seen from here counts as dead. */
const SILENCE = 300_000;

const holderSchema = z.object({
  ...processIdentity.shape,
  token: z.string(),
  since: z.iso.datetime(),
  /** What `memoryKills` said when the lock was taken. */
  memoryKills: z.int().nullable().default(null),
});
type Holder = z.infer<typeof holderSchema>;

/** A folder that only this process writes to, until `release`. */
export interface FolderLock {
  /** Whether the process that had it before died on this machine while the system killed for want of memory. */
  readonly killedForMemory: boolean;
  /** Ends it; a second call does nothing. */
  release(): void;
}

/**
 * Takes a folder for this process alone. The lock is a file with who holds it; one whose process died, by a crash or a
 * reboot, is taken over, also where the process's number was given to another since. Of a process that cannot be seen
 * from here, on another machine or in another container, the file's time is the sign of life.
 *
 * @throws UserError `run.locked` (exit code 2) naming the process that holds the folder
 */
export function lockFolder(folder: string): FolderLock {
  const path = join(resolve(folder), LOCK_FILE);
  const since = new Date().toISOString();
  const holder: Holder = { ...ownIdentity(), token: randomUUID(), since, memoryKills: memoryKills() };
  let killedForMemory = false;
  try {
    mkdirSync(resolve(folder), { recursive: true });
    while (!put(path, holder)) {
      const found = read(path);
      if (found === undefined) continue;
      if (!isStale(found, holder)) throw locked(folder, path, found.holder);
      killedForMemory = diedForMemory(found, holder);
      takeOver(folder, path, found, holder);
    }
  } catch (error) {
    throw writeFault(error, path);
  }
  const beat = setInterval(() => {
    touch(path, holder);
  }, SIGN_OF_LIFE).unref();
  return {
    killedForMemory,
    release: () => {
      clearInterval(beat);
      if (read(path)?.holder?.token === holder.token) rmSync(path, { force: true });
    },
  };
}

/** What a lock file says, and when it was last touched; no holder where the text is torn. */
interface Found {
  readonly text: string;
  readonly holder: Holder | undefined;
  readonly touchedAt: number;
}

function read(path: string): Found | undefined {
  try {
    const text = readFileSync(path, 'utf8');
    return { text, holder: parse(text), touchedAt: statSync(path).mtimeMs };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function parse(text: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Writes the lock whole, unless there is one. */
function put(path: string, holder: Holder): boolean {
  const temporary = claimTemporary(path, 'tmp');
  const text = `${JSON.stringify(holder)}\n`;
  try {
    writeFileSync(temporary, text, { flag: 'wx' });
    try {
      linkSync(temporary, path);
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      // Some file systems know no second name for a file.
      if (!['EPERM', 'ENOTSUP', 'ENOSYS', 'EMLINK', 'EOPNOTSUPP'].includes(errnoOf(error) ?? '')) throw error;
      return putDirectly(path, text);
    }
    return true;
  } finally {
    rmSync(temporary, { force: true });
    release(temporary);
  }
}

function putDirectly(path: string, text: string): boolean {
  try {
    writeFileSync(path, text, { flag: 'wx' });
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/**
 * Removes a stale lock, if no other process does. Who may is decided by a second lock, named after the stale one: only its
 * owner removes that one, so between its look and its removal no other lock can have come to lie there.
 */
function takeOver(folder: string, path: string, stale: Found, holder: Holder): void {
  const marker = agreedTemporary(path, sha256(stale.text).slice(0, 8));
  if (!put(marker, holder)) {
    const other = read(marker);
    if (other === undefined) return;
    if (!isStale(other, holder)) throw locked(folder, path, other.holder);
    takeAway(marker, other);
    return;
  }
  try {
    if (read(path)?.text === stale.text) rmSync(path, { force: true });
  } finally {
    rmSync(marker, { force: true });
  }
}

/** Moves a stale lock away. Where another process was faster and put its own in between, that one is put back. */
function takeAway(path: string, stale: Found): void {
  const aside = claimTemporary(path, 'tmp');
  try {
    renameSync(path, aside);
    if (readFileSync(aside, 'utf8') !== stale.text) linkSync(aside, path);
  } catch (error) {
    if (!['ENOENT', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error;
  } finally {
    rmSync(aside, { force: true });
    release(aside);
  }
}

function isStale({ holder, touchedAt }: Found, own: Holder): boolean {
  const fate = holder === undefined ? 'elsewhere' : fateOf(holder, own);
  if (fate !== 'elsewhere') return fate === 'gone';
  const rebooted = holder?.host === own.host && touchedAt < Date.now() - uptime() * 1000;
  return rebooted || Date.now() - touchedAt > SILENCE;
}

function diedForMemory({ holder }: Found, own: Holder): boolean {
  if (holder === undefined || holder.memoryKills === null || own.memoryKills === null) return false;
  return fateOf(holder, own) === 'gone' && own.memoryKills > holder.memoryKills;
}

function touch(path: string, holder: Holder): void {
  try {
    if (read(path)?.holder?.token === holder.token) utimesSync(path, new Date(), new Date());
  } catch {
    return;
  }
}

function locked(folder: string, path: string, holder: Holder | undefined): UserError {
  const who = holder === undefined ? '' : `: process ${holder.pid} on ${holder.host}, since ${holder.since}`;
  return new UserError({
    code: 'run.locked',
    message: `Another process writes to this folder${who}. Nothing was changed.`,
    where: folder,
    fix: `Wait until it has ended, or choose another --out. Should it be gone, remove ${path}.`,
  });
}
