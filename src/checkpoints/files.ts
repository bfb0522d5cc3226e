import { createReadStream } from 'node:fs';
import { mkdir, open, readFile, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { machineError, UserError } from '../errors.js';

/**
 * How a whole file is written: `chunks` in order, one after the other. Whoever wants files that appear whole or not at
 * all hands in a strategy that writes beside the path and renames.
 */
export type WriteFile = (path: string, chunks: AsyncIterable<Uint8Array>) => Promise<void>;

/** Writes straight to `path` (its folder is made); never holds more than one chunk. */
export const writeDirectly: WriteFile = async (path, chunks) => {
  try {
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(path, 'w');
    try {
      for await (const chunk of chunks) await writeAll(handle, chunk);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw explainFileError(error, path, 'write');
  }
};

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  let done = 0;
  while (done < chunk.byteLength) done += (await handle.write(chunk, done)).bytesWritten;
}

/** One string as the content of a file. */
export async function* textChunks(text: string): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(Buffer.from(text, 'utf8'));
}

/** JSON with two-space indentation and a final newline, as the content of a file. */
export const jsonChunks = (value: unknown): AsyncGenerator<Uint8Array> =>
  textChunks(`${JSON.stringify(value, null, 2)}\n`);

/** Copies one file through the write strategy. */
export async function copyThrough(from: string, to: string, write: WriteFile): Promise<void> {
  await write(to, createReadStream(from) as AsyncIterable<Uint8Array>);
}

/** Opens a regular file for reading, hands it and its size in bytes to `use`, and closes it. */
export async function withFile<T>(path: string, use: (handle: FileHandle, size: number) => Promise<T>): Promise<T> {
  try {
    const handle = await open(path, 'r');
    try {
      const stats = await handle.stat();
      if (!stats.isFile()) throw notAFile(path);
      return await use(handle, stats.size);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw explainFileError(error, path, 'read');
  }
}

/** Fills `target` from the file at `position`; a file that ends earlier is a UserError. */
export async function readExactly(
  handle: FileHandle,
  path: string,
  target: Uint8Array,
  position: number,
): Promise<void> {
  const largestRead = 1 << 30;
  let done = 0;
  while (done < target.byteLength) {
    const length = Math.min(largestRead, target.byteLength - done);
    const { bytesRead } = await handle.read(target, done, length, position + done);
    if (bytesRead === 0) {
      throw new UserError({
        code: 'checkpoint.truncated',
        message: `The file ends at byte ${position + done}, but data was expected up to byte ${position + target.byteLength}.`,
        where: path,
        fix: 'Copy or download the file again.',
      });
    }
    done += bytesRead;
  }
}

/** Reads and parses a small JSON file whose top level must be an object. */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw explainFileError(error, path, 'read');
  }
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    throw notJson(path, (error as Error).message);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw notJson(path, 'its top level is not an object');
  }
  return value as Record<string, unknown>;
}

const notJson = (path: string, reason: string): UserError =>
  new UserError({
    code: 'checkpoint.invalid-json',
    message: `The file is not valid JSON: ${reason}.`,
    where: path,
    fix: 'Copy or download the file again, or correct it by hand.',
  });

const notAFile = (path: string): UserError =>
  new UserError({
    code: 'checkpoint.not-a-file',
    message: 'A file was expected here, but this is something else.',
    where: path,
    fix: 'Give the path of a file.',
  });

/** A system error of a file operation as an error for people; anything else is returned as it is. */
export function explainFileError(error: unknown, path: string, action: 'read' | 'write'): unknown {
  if (!(error instanceof Error) || !('code' in error) || error instanceof UserError) return error;
  const details = { where: path, cause: error };
  const { code } = error;
  if (action === 'write' && (code === 'ENOTDIR' || code === 'EEXIST' || code === 'EISDIR')) {
    return new UserError({
      ...details,
      code: 'checkpoint.cannot-write',
      message: `No file can be written here: a file stands where a folder is needed, or the reverse (${code}).`,
      fix: 'Choose another folder.',
    });
  }
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new UserError({
        ...details,
        code: 'checkpoint.missing-file',
        message: 'There is no such file.',
        fix: 'Check the path, and that the folder was copied whole.',
      });
    case 'EISDIR':
      return notAFile(path);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new UserError({
        ...details,
        code: `checkpoint.cannot-${action}`,
        message: `This user may not ${action} the file (${code}).`,
        fix: action === 'read' ? 'Change its permissions.' : 'Choose another folder, or change its permissions.',
      });
    case 'ENOSPC':
    case 'EDQUOT':
      return machineError({
        ...details,
        code: 'checkpoint.disk-full',
        message: 'The disk is full.',
        fix: 'Free some space, or choose a folder on another disk.',
      });
    default:
      return error;
  }
}
