import { open, rm } from 'node:fs/promises';
import { bytesText, machineError, UserError } from '../errors.js';

/** A file on a server, with what it must turn out to be. */
export interface RemoteFile {
  /** For people. */
  readonly name: string;
  readonly url: string;
  readonly bytes: number;
  /** Whether a local file has the right content; its size is right already. */
  readonly isRight: (path: string) => Promise<boolean>;
  readonly headers?: Readonly<Record<string, string>>;
  /** What an answer such as 401 means on this server; without it, that the server refuses the file. */
  readonly refusal?: (status: number) => UserError | undefined;
}

export interface TransferProgress {
  readonly file: string;
  /** Bytes that are here, those of an earlier attempt included. */
  readonly received: number;
  readonly total: number;
}

/** A fault that may pass by itself: the network, a busy server, a transfer that broke. */
export class Transient extends Error {
  /** Milliseconds that the server asked to wait. */
  readonly retryAfter: number | undefined;

  constructor(message: string, options: ErrorOptions & { readonly retryAfter?: number | undefined } = {}) {
    super(message, options);
    this.retryAfter = options.retryAfter;
  }
}

export interface TransferOptions {
  readonly onProgress?: (progress: TransferProgress) => void;
  readonly signal?: AbortSignal;
  /** A connection that stays silent for this many milliseconds counts as cut. Default 30,000. */
  readonly idleTimeout?: number;
}

/**
 * One transfer of a file into `part`, from byte `start` on where the server can, else from the beginning.
 * Resolves when the server has sent all it announced; whether that is the right content is not looked at.
 *
 * @throws Transient when another attempt may succeed; UserError when none will.
 */
export async function download(
  file: RemoteFile,
  part: string,
  start: number,
  { onProgress, signal, idleTimeout = 30_000 }: TransferOptions,
): Promise<void> {
  const connection = new AbortController();
  const timer = setTimeout(() => {
    connection.abort(new Transient(`nothing arrived for ${idleTimeout / 1000} s`));
  }, idleTimeout);
  try {
    const response = await fetch(file.url, {
      // Ranges count bytes of what is sent, so it must not be sent compressed.
      headers: { ...file.headers, 'accept-encoding': 'identity', ...(start > 0 && { range: `bytes=${start}-` }) },
      signal: signal ? AbortSignal.any([signal, connection.signal]) : connection.signal,
    }).catch((cause: unknown) => {
      throw networkFault(cause);
    });
    if (response.status === 416) {
      await rm(part);
      throw new Transient('the server has less than what had arrived before');
    }
    const continued = isContinued(response, start, file);
    if (response.body === null) throw new Transient('the answer has no content');
    let received = continued ? start : 0;
    onProgress?.({ file: file.name, received, total: file.bytes });
    const fault = (cause: unknown): never => {
      throw diskError(
        cause,
        part,
        `${file.name} takes ${bytesText(file.bytes)}, of which ${bytesText(received)} are here`,
      );
    };
    const handle = await open(part, continued ? 'a' : 'w').catch(fault);
    try {
      for await (const chunk of chunksOf(response.body)) {
        timer.refresh();
        await handle.appendFile(chunk).catch(fault);
        received += chunk.length;
        // More than was published is wrong already; the checksum will say so.
        if (received > file.bytes) break;
        onProgress?.({ file: file.name, received, total: file.bytes });
      }
      await handle.sync().catch(fault);
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
function isContinued(response: Response, start: number, file: RemoteFile): boolean {
  const { status } = response;
  if (status === 206) {
    if (start > 0 && response.headers.get('content-range')?.startsWith(`bytes ${start}-`) === true) return true;
    throw new Transient('the server answered another range than the one asked for');
  }
  if (status === 200) return false;
  if (isBusy(status)) throw busy(response);
  throw (
    file.refusal?.(status) ??
    new UserError({
      code: status === 404 ? 'transfer.not-found' : 'transfer.refused',
      message:
        status === 404
          ? `The server does not have ${file.name} (404).`
          : `The server refuses ${file.name} (${status} ${response.statusText}).`,
      where: file.url,
      fix: 'The file may have moved. Check the address, and give another one where needed.',
    })
  );
}

/** Whether a server may answer otherwise a little later. */
export const isBusy = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** The fault of a busy server, with the pause that it asks for: seconds or a date (RFC 9110, 10.2.3). */
export function busy({ status, statusText, headers }: Response): Transient {
  const asked = headers.get('retry-after');
  const seconds = asked === null ? NaN : Number(asked);
  const pause = Number.isNaN(seconds) ? Date.parse(asked ?? '') - Date.now() : seconds * 1000;
  const retryAfter = Number.isNaN(pause) ? undefined : Math.min(60_000, Math.max(0, pause));
  return new Transient(`the server answered ${`${status} ${statusText}`.trim()}`, { retryAfter });
}

/** A failed connection, with the reason that `fetch` hides one level down: ECONNREFUSED, ENOTFOUND, … */
export function networkFault(cause: unknown): Error {
  if (cause instanceof Transient) return cause;
  const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  return new Transient(reason instanceof Error ? reason.message || reason.name : String(reason), { cause });
}

/**
 * The error of a failed write: no space is the machine's fault, the rest the folder's.
 *
 * @param needed what takes how much room, in words
 */
export function diskError(cause: unknown, where: string, needed?: string): UserError {
  const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
  if (reason === 'ENOSPC' || reason === 'EDQUOT') {
    return machineError({
      code: 'transfer.no-space',
      message: `There is no space left on the disk (${reason})${needed === undefined ? '' : `: ${needed}`}.`,
      where,
      fix: 'Free some space and try again: what has arrived is kept and continued.',
      cause,
    });
  }
  return new UserError({
    code: 'transfer.unwritable-folder',
    message: `The file cannot be written (${reason}).`,
    where,
    fix: 'Choose a folder that you may write to.',
    cause,
  });
}
