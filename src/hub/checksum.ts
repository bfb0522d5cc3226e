import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { HubFile } from './source.js';

/** Whether a local file has the content that its server announces. */
export async function hasChecksum(path: string, { checksum, bytes }: HubFile): Promise<boolean> {
  const hash = createHash(checksum.kind === 'sha256' ? 'sha256' : 'sha1');
  // Git's id of a file is the hash of its length and its content.
  if (checksum.kind === 'git-blob') hash.update(`blob ${bytes}\0`);
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex') === checksum.value.toLowerCase();
}
