import { rename, rm, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { machineError, UserError } from '../errors.js';
import { diskError, download, Transient, type RemoteFile, type TransferOptions } from './download.js';

export interface Patience {
  /** How often a request is tried, at least 1. Default 4. */
  readonly attempts?: number | undefined;
  /** Pause before the second attempt, in milliseconds, unless the server asks for another; it doubles each time. Default 500. */
  readonly retryDelay?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FetchOptions extends TransferOptions, Omit<Patience, 'signal'> {
  /** Where the file arrives. Default `PATH.part`. */
  readonly part?: string;
}

/**
 * Fetches a file to `path`. It arrives beside, is continued there by a Range request when a transfer breaks (also by the
 * next call), and takes its name only when size and content are right.
 *
 * @throws UserError (exit 2): the server does not have or give the file, its content is wrong, the folder cannot be
 *   written. Exit 3: no network, no space. `signal`'s reason when aborted.
 */
export async function fetchFile(file: RemoteFile, path: string, options: FetchOptions = {}): Promise<void> {
  const part = options.part ?? `${path}.part`;
  await patiently(file.url, options, () => attempt(file, part, options));
  await rename(part, path).catch((cause: unknown) => {
    throw diskError(cause, path);
  });
}

/** Repeats what fails for a passing reason. */
export async function patiently<T>(url: string, patience: Patience, act: () => Promise<T>): Promise<T> {
  const { attempts = 4, retryDelay = 500, signal } = patience;
  for (let count = 1; ; count++) {
    let pause = retryDelay * 2 ** (count - 1);
    try {
      return await act();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Transient)) throw error;
      if (count >= attempts) throw gaveUp(error, url, attempts);
      pause = error.retryAfter ?? pause;
    }
    await sleep(pause, undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
  }
}

/** Leaves `part` whole and verified, or throws. */
async function attempt(file: RemoteFile, part: string, options: TransferOptions): Promise<void> {
  let start = (await sizeOf(part)) ?? 0;
  if (start > file.bytes) {
    await rm(part);
    start = 0;
  }
  if (start < file.bytes || file.bytes === 0) await download(file, part, start, options);
  if (await isWhole(file, part)) return;
  await rm(part);
  // A continued file may be two different ones glued together; a fresh one is what the server has.
  if (start > 0) throw new Transient('what had arrived before did not fit the rest');
  throw new UserError({
    code: 'transfer.wrong-checksum',
    message: `The content of ${file.name} is not what was published (its size or checksum differs).`,
    where: file.url,
    fix: 'The published file has changed, or something between here and there alters it. Get it by hand and compare.',
  });
}

/** Whether the file at `path` has the size and the content of what was published. */
export async function isWhole(file: Pick<RemoteFile, 'bytes' | 'isRight'>, path: string): Promise<boolean> {
  return (await sizeOf(path)) === file.bytes && (await file.isRight(path));
}

export async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    (found) => found.size,
    () => undefined,
  );
}

const gaveUp = (error: Transient, url: string, attempts: number): UserError =>
  machineError({
    code: 'transfer.no-network',
    message: `The download failed ${attempts === 1 ? 'once' : `${attempts} times`}; the last time: ${error.message}.`,
    where: url,
    fix: 'Check that this machine reaches the network and try again: what has arrived is kept and continued.',
    cause: error,
  });
