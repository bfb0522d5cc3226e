import { createHash, type Hash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.js';
import { explainFileError, readExactly, withFile } from './files.js';
import { readHeader } from './safetensors.js';

/** Weight files up to this size, in bytes, and all other files are hashed whole. */
const wholeUpTo = 1 << 20;
/** Of longer ones, this many windows at even distances, the first and the last bytes among them. */
const windows = 256;
const windowBytes = 4096;

const describesModel = (file: string): boolean =>
  file.endsWith('.safetensors') ||
  file === 'config.json' ||
  file === 'generation_config.json' ||
  file === 'adapter_config.json' ||
  file.endsWith('.safetensors.index.json') ||
  /^pytorch_model.*\.bin(\.index\.json)?$/.test(file);

/**
 * A SHA-256 (hex) that tells models or adapters apart at little cost: over their configs, and the size, header and an
 * even sample of the content of every weight file. It does not depend on where the folder lies, and is no protection
 * against somebody who changes weights between the samples on purpose.
 *
 * @throws UserError when the folder is missing or holds no model and no adapter
 */
export async function fingerprint(dir: string): Promise<string> {
  const files = await readdir(dir).catch((error: unknown) => {
    throw explainFileError(error, dir, 'read');
  });
  const hash = createHash('sha256');
  const described = files.filter(describesModel).sort();
  if (described.length === 0) {
    throw new UserError({
      code: 'model.no-config',
      message: 'The folder holds neither a model nor an adapter.',
      where: dir,
      fix: 'Give the folder that holds config.json and model.safetensors, or adapter_config.json.',
    });
  }
  for (const file of described) await addFile(hash, dir, file);
  return hash.digest('hex');
}

const addFile = (hash: Hash, dir: string, file: string): Promise<void> => {
  hash.update(`${file}\0`);
  return addContent(hash, join(dir, file));
};

/** Adds a file's size, beginning and, of one with weights, an even sample of what it holds. */
export const addContent = (hash: Hash, path: string): Promise<void> =>
  withFile(path, async (handle, size) => {
    hash.update(`${size}\0`);
    const addRange = async (start: number, length: number): Promise<void> => {
      const bytes = new Uint8Array(length);
      await readExactly(handle, path, bytes, start);
      hash.update(bytes);
    };
    if (size <= wholeUpTo || !/\.(safetensors|bin)$/.test(path)) return addRange(0, size);
    await addRange(0, path.endsWith('.bin') ? wholeUpTo : (await readHeader(path)).dataStart);
    for (let i = 0; i < windows; i++) {
      await addRange(Math.floor((i * (size - windowBytes)) / (windows - 1)), windowBytes);
    }
  });
