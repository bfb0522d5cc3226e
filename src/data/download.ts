import { open, rm } from 'node:fs/promises';
import { machineError, UserError } from '../errors.js';
import type { RemoteFile } from './published.js';

export interface PullProgress {
  readonly file: string;
  /** Bytes that are here, those of an earlier attempt included. */
  readonly received: number;
  readonly total: number;
}

/** A fault that may pass by itself: the network, a busy server, a transfer that broke. */
export class Transient extends Error {}

export interface TransferOptions {
  readonly onProgress?: (progress: PullProgress) => void;
  readonly signal?: AbortSignal;
  /** A connection that stays silent for this many milliseconds counts as cut. Default 30,000. */
  readonly idleTimeout?: number;
}

/**
 * One transfer of `url` into `part`, from byte `start` on where the server can, else from the beginning.
 * Resolves when the server has sent all it announced; whether that is the right content is not looked at.
 *
 * @throws Transient when another attempt may succeed; UserError when none will.
 */
export async function download(
  file: RemoteFile,
  url: string,
  part: string,
  start: number,
  { onProgress, signal, idleTimeout = 30_000 }: TransferOptions,
): Promise<void> {
  const connection = new AbortController();
  const timer = setTimeout(() => {
    connection.abort(new Transient(`nothing arrived for ${idleTimeout / 1000} s`));
  }, idleTimeout);
  try {
    const response = await fetch(url, {
      // Ranges count bytes of what is sent, so it must not be sent compressed.
      headers: { 'accept-encoding': 'identity', ...(start > 0 && { range: `bytes=${start}-` }) },
      signal: signal ? AbortSignal.any([signal, connection.signal]) : connection.signal,
    }).catch((cause: unknown) => {
      throw networkFault(cause);
    });
    if (response.status === 416) {
      await rm(part);
      throw new Transient('the server has less than what had arrived before');
    }
    const continued = isContinued(response, start, file, url);
    if (response.body === null) throw new Transient('the answer has no content');
    let received = continued ? start : 0;
    onProgress?.({ file: file.name, received, total: file.bytes });
    const handle = await open(part, continued ? 'a' : 'w').catch((cause: unknown) => {
      throw diskError(cause, part);
    });
    try {
      for await (const chunk of chunksOf(response.body)) {
        timer.refresh();
        await handle.appendFile(chunk).catch((cause: unknown) => {
          throw diskError(cause, part);
        });
        received += chunk.length;
        // More than was published is wrong already; the checksum will say so.
        if (received > file.bytes) break;
        onProgress?.({ file: file.name, received, total: file.bytes });
      }
      await handle.sync().catch((cause: unknown) => {
        throw diskError(cause, part);
      });
    } finally {
      await handle.close();
    }
    if (received < file.bytes && isShort(response, received - (continued ? start : 0))) {
      throw new Transient(`the transfer broke after ${received} of ${file.bytes} bytes`);
    }
  } finally {
    clearTimeout(timer);
    connection.abort();
  }
}

async function* chunksOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of body) yield chunk;
  } catch (cause) {
    throw networkFault(cause);
  }
}

/** Whether fewer bytes came than the server announced; without an announcement every short answer is a broken one. */
function isShort(response: Response, received: number): boolean {
  const announced = response.headers.get('content-length');
  return announced === null || received < Number(announced);
}

/** True: the body goes after the first `start` bytes. False: it is the whole file. */
function isContinued(response: Response, start: number, file: RemoteFile, url: string): boolean {
  const { status } = response;
  if (status === 206) {
    if (start > 0 && response.headers.get('content-range')?.startsWith(`bytes ${start}-`) === true) return true;
    throw new Transient('the server answered another range than the one asked for');
  }
  if (status === 200) return false;
  if (status === 429 || status >= 500) throw new Transient(`the server answered ${status} ${response.statusText}`);
  throw new UserError({
    code: status === 404 ? 'data.not-published' : 'data.refused-by-server',
    message:
      status === 404
        ? `The server does not have ${file.name} (404).`
        : `The server refuses ${file.name} (${status} ${response.statusText}).`,
    where: url,
    fix: 'The file may have moved. Check the address, and give another one as base URL where needed.',
  });
}

function networkFault(cause: unknown): Error {
  if (cause instanceof Transient) return cause;
  // fetch hides the reason (ECONNREFUSED, ENOTFOUND, …) one level down.
  const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  return new Transient(reason instanceof Error ? reason.message || reason.name : String(reason), { cause });
}

/** The error of a failed write: no space is the machine's fault, the rest the folder's. */
export function diskError(cause: unknown, where: string): UserError {
  const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
  if (reason === 'ENOSPC' || reason === 'EDQUOT') {
    return machineError({
      code: 'data.no-space',
      message: `There is no space left on the disk (${reason}).`,
      where,
      fix: 'Free some space and pull again: what has arrived is kept and continued.',
      cause,
    });
  }
  return new UserError({
    code: 'data.unwritable-folder',
    message: `The file cannot be written (${reason}).`,
    where,
    fix: 'Pull into a folder that you may write to.',
    cause,
  });
}
