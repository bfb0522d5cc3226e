import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { bytesText, machineError } from '../errors.js';

/**
 * Refuses to begin what a disk has no room for.
 *
 * @param folder where it is to be written, whether that stands already or not
 * @param needed.what takes the room, as the beginning of a sentence: `The download`
 * @throws UserError (exit 3) with what is needed and what is free
 */
export async function requireSpace(
  folder: string,
  bytes: number,
  needed: { readonly code: string; readonly what: string; readonly fix: string },
): Promise<void> {
  const { code, what, fix } = needed;
  const { bavail, bsize } = await statfs(standing(resolve(folder)));
  const free = bavail * bsize;
  if (free >= bytes) return;
  const message = `${what} needs ${bytesText(bytes)}; ${bytesText(free)} are free.`;
  throw machineError({ code, message, where: folder, fix });
}

const standing = (path: string): string => (existsSync(path) ? path : standing(dirname(path)));
