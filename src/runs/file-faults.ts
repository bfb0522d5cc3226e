import { machineError, UserError } from '../errors.js';

const UNWRITABLE = new Map([
  ['EACCES', 'permission denied'],
  ['EPERM', 'operation not permitted'],
  ['EROFS', 'the file system is read-only'],
  ['ENOTDIR', 'a part of the path is a file, not a folder'],
  ['EEXIST', 'a file stands where a folder is needed'],
  ['EISDIR', 'a folder stands where a file should be written'],
  ['ENAMETOOLONG', 'the name is too long'],
]);

const DISK = new Map([
  ['ENOSPC', 'no space left on the device'],
  ['EDQUOT', 'the disk quota is used up'],
  ['EIO', 'the device reported an input/output error'],
]);

/** The `code` of a system error (`ENOENT`, …), or undefined for any other value. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/**
 * What to throw when writing `where` failed with `error`: a `UserError` for a path that cannot be written (exit code 2)
 * or a disk that is full or broken (exit code 3), and the error itself where it is neither.
 */
export function writeFault(error: unknown, where: string): unknown {
  // What was written beside its place failed there; for people it is the place that counts.
  if (error instanceof UserError) return DISK.has(errnoOf(error.cause) ?? '') ? writeFault(error.cause, where) : error;
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  const unwritable = UNWRITABLE.get(errno);
  if (unwritable !== undefined) {
    return new UserError({
      code: 'file.unwritable',
      message: `Cannot write: ${unwritable} (${errno}).`,
      where,
      fix: 'Choose a folder you may write to, or change its permissions.',
      cause: error,
    });
  }
  const disk = DISK.get(errno);
  if (disk !== undefined) {
    return machineError({
      code: 'file.disk',
      message: `Cannot write: ${disk} (${errno}). What was there before is untouched.`,
      where,
      fix: 'Free space or choose a folder on another disk, then run again with --resume.',
      cause: error,
    });
  }
  return error;
}
