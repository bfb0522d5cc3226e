import { closeSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { writeFault } from './file-faults.js';

/**
 * A file that only grows: metrics lines, TensorBoard records. Opened at the first append. Writing is synchronous,
 * so that a log line is in the operating system's hands when `append` returns and survives a crash of the process.
 */
export class AppendFile {
  readonly path: string;
  #descriptor: number | undefined;

  constructor(path: string) {
    this.path = path;
  }

  /**
   * Adds all of `data` or nothing.
   *
   * @throws UserError `file.unwritable` (exit code 2) or `file.disk` (exit code 3)
   */
  append(data: string | Uint8Array): void {
    const bytes = typeof data === 'string' ? Buffer.from(data, 'utf8') : data;
    this.#guarded(() => {
      const descriptor = this.#open();
      const before = fstatSync(descriptor).size;
      try {
        let written = 0;
        while (written < bytes.length) written += writeSync(descriptor, bytes, written);
      } catch (error) {
        truncateQuietly(descriptor, before);
        throw error;
      }
    });
  }

  /** Cuts the file to its first `size` bytes. */
  truncate(size: number): void {
    this.#guarded(() => {
      ftruncateSync(this.#open(), size);
    });
  }

  /** Waits until everything appended is on the disk; survives a power cut from then on. */
  sync(): void {
    if (this.#descriptor === undefined) return;
    const descriptor = this.#descriptor;
    this.#guarded(() => {
      fsyncSync(descriptor);
    });
  }

  /** Closes the file; a later append opens it again. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #open(): number {
    if (this.#descriptor === undefined) {
      mkdirSync(dirname(this.path), { recursive: true });
      this.#descriptor = openSync(this.path, 'a');
    }
    return this.#descriptor;
  }

  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      throw writeFault(error, this.path);
    }
  }
}

/** The failed write is what matters to the caller; readers drop a torn end anyway. */
function truncateQuietly(descriptor: number, size: number): void {
  try {
    ftruncateSync(descriptor, size);
  } catch {
    return;
  }
}
