import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';

/** What a file held when it was read: enough to tell later whether it is still the same. */
export interface Fingerprint {
  /** Hexadecimal. */
  readonly sha256: string;
  readonly bytes: number;
}

/** Reads a file once, in pieces. Rejects with the file system's error when it cannot be read. */
export async function fingerprintFile(file: string): Promise<Fingerprint> {
  const hash = createHash('sha256');
  let bytes = 0;
  await pipeline(createReadStream(file), async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) {
      hash.update(chunk);
      bytes += chunk.length;
    }
  });
  return { sha256: hash.digest('hex'), bytes };
}
