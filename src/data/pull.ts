import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { machineError, UserError } from '../errors.js';
import { diskError, download, Transient, type TransferOptions } from './download.js';
import { fingerprintFile } from './fingerprint.js';
import { PUBLISHED_BASE_URL, PUBLISHED_FILES, type RemoteFile } from './published.js';

export interface PullOptions extends TransferOptions {
  readonly dir: string;
  readonly baseUrl?: string;
  readonly files?: readonly RemoteFile[];
  /** How often a file is tried, at least 1. Default 4. */
  readonly attempts?: number;
  /** Pause before the second attempt, in milliseconds; it doubles each time. Default 500. */
  readonly retryDelay?: number;
}

export interface PulledFile {
  readonly name: string;
  readonly path: string;
  readonly status: 'downloaded' | 'present';
}

/**
 * Fetches files into a folder. Each arrives as `NAME.part`, is continued there by a Range request when a transfer
 * breaks (also by the next call), and takes its name only when size and SHA-256 are right. Files that are already there
 * and right are left alone; one that is there and different is refused, never overwritten.
 *
 * @throws UserError (exit 2): the server does not have the file, its content is not what was published, the folder
 *   cannot be written, another file stands in the way. Exit 3: no network, no space. `signal`'s reason when aborted.
 */
export async function pullData(options: PullOptions): Promise<PulledFile[]> {
  const { dir, files = PUBLISHED_FILES } = options;
  await mkdir(dir, { recursive: true }).catch((cause: unknown) => {
    throw diskError(cause, dir);
  });
  const pulled: PulledFile[] = [];
  for (const file of files) {
    const path = join(dir, file.name);
    const status = (await isPresent(file, path)) ? 'present' : 'downloaded';
    if (status === 'downloaded') await pullFile(file, path, options);
    pulled.push({ name: file.name, path, status });
  }
  return pulled;
}

async function isPresent(file: RemoteFile, path: string): Promise<boolean> {
  if ((await sizeOf(path)) === undefined) return false;
  if (await isRight(file, path)) return true;
  throw new UserError({
    code: 'data.file-in-the-way',
    message: `${file.name} exists and is not the published file.`,
    where: path,
    fix: 'Move it away, or pull into another folder.',
  });
}

async function pullFile(file: RemoteFile, path: string, options: PullOptions): Promise<void> {
  const { attempts = 4, retryDelay = 500, signal } = options;
  const url = urlOf(file, options.baseUrl ?? PUBLISHED_BASE_URL);
  const part = `${path}.part`;
  for (let attempt = 1; ; attempt++) {
    try {
      await attemptPull(file, url, part, options);
      await rename(part, path).catch((cause: unknown) => {
        throw diskError(cause, path);
      });
      return;
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Transient)) throw error;
      if (attempt >= attempts) throw gaveUp(error, url, attempts);
    }
    await sleep(retryDelay * 2 ** (attempt - 1), undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
  }
}

function urlOf(file: RemoteFile, baseUrl: string): string {
  try {
    return new URL(file.path, baseUrl.endsWith('/') ? baseUrl : `${baseUrl}/`).href;
  } catch (cause) {
    throw new UserError({
      code: 'data.invalid-url',
      message: `"${baseUrl}" is not an address.`,
      where: 'base URL',
      fix: `Give one like ${PUBLISHED_BASE_URL}`,
      cause,
    });
  }
}

/** Leaves `part` whole and verified, or throws. */
async function attemptPull(file: RemoteFile, url: string, part: string, options: PullOptions): Promise<void> {
  let start = (await sizeOf(part)) ?? 0;
  if (start > file.bytes) {
    await rm(part);
    start = 0;
  }
  if (start < file.bytes) await download(file, url, part, start, options);
  if (await isRight(file, part)) return;
  await rm(part);
  // A continued file may be two different ones glued together; a fresh one is what the server has.
  if (start > 0) throw new Transient('what had arrived before did not fit the rest');
  throw new UserError({
    code: 'data.wrong-checksum',
    message: `The content of ${file.name} is not what was published (its size or SHA-256 differs).`,
    where: url,
    fix: 'The published file has changed, or something between here and there alters it. Get it by hand and compare.',
  });
}

function gaveUp(error: Transient, url: string, attempts: number): UserError {
  return machineError({
    code: 'data.no-network',
    message: `The download failed ${attempts === 1 ? 'once' : `${attempts} times`}; the last time: ${error.message}.`,
    where: url,
    fix: 'Check that this machine reaches the network and try again: what has arrived is kept and continued.',
    cause: error,
  });
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    (found) => found.size,
    () => undefined,
  );
}

async function isRight(file: RemoteFile, path: string): Promise<boolean> {
  if ((await sizeOf(path)) !== file.bytes) return false;
  return (await fingerprintFile(path)).sha256 === file.sha256;
}
