import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.js';
import { diskError, type RemoteFile } from '../transfer/download.js';
import { fetchFile, isWhole, sizeOf, type FetchOptions } from '../transfer/fetch-file.js';
import { fingerprintFile } from './fingerprint.js';
import { PUBLISHED_BASE_URL, PUBLISHED_FILES, type PublishedFile } from './published.js';

export interface PullOptions extends Omit<FetchOptions, 'part'> {
  readonly dir: string;
  readonly baseUrl?: string;
  readonly files?: readonly PublishedFile[];
}

export interface PulledFile {
  readonly name: string;
  readonly path: string;
  readonly status: 'downloaded' | 'present';
}

/**
 * Fetches files into a folder. Files that are already there and right are left alone; one that is there and different is
 * refused, never overwritten.
 *
 * @throws UserError (exit 2): the server does not have the file, its content is not what was published, the folder
 *   cannot be written, another file stands in the way. Exit 3: no network, no space. `signal`'s reason when aborted.
 */
export async function pullData(options: PullOptions): Promise<PulledFile[]> {
  const { dir, baseUrl = PUBLISHED_BASE_URL, files = PUBLISHED_FILES } = options;
  await mkdir(dir, { recursive: true }).catch((cause: unknown) => {
    throw diskError(cause, dir);
  });
  const pulled: PulledFile[] = [];
  for (const published of files) {
    const file = remoteFile(published, baseUrl);
    const path = join(dir, file.name);
    const status = (await isPresent(file, path)) ? 'present' : 'downloaded';
    if (status === 'downloaded') await fetchFile(file, path, options);
    pulled.push({ name: file.name, path, status });
  }
  return pulled;
}

const remoteFile = ({ name, path, sha256, bytes }: PublishedFile, baseUrl: string): RemoteFile => ({
  name,
  url: urlOf(path, baseUrl),
  bytes,
  isRight: async (local) => (await fingerprintFile(local)).sha256 === sha256,
});

async function isPresent(file: RemoteFile, path: string): Promise<boolean> {
  if ((await sizeOf(path)) === undefined) return false;
  if (await isWhole(file, path)) return true;
  throw new UserError({
    code: 'data.file-in-the-way',
    message: `${file.name} exists and is not the published file.`,
    where: path,
    fix: 'Move it away, or pull into another folder.',
  });
}

function urlOf(path: string, baseUrl: string): string {
  try {
    return new URL(path, baseUrl.endsWith('/') ? baseUrl : `${baseUrl}/`).href;
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
