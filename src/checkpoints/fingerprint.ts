import { createHash, type Hash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.js';
import { explainFileError, readExactly, withFile } from './files.js';
import { readHeader } from './safetensors.js';
import { TOKENIZER_FILES } from './tokenizer-file-names.js';

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
 * A SHA-256 (hex) that tells models or adapters apart at little cost: over their configs, their tokenizer with its chat
 * template, and the size, header and an even sample of the content of every weight file. It does not depend on where the
 * folder lies, and is no protection against somebody who changes weights between the samples on purpose.
 *
 * @throws UserError when the folder is missing or holds no model and no adapter
 */
export const fingerprint = (dir: string): Promise<string> =>
  fingerprintOf(dir, (file) => describesModel(file) || TOKENIZER_FILES.has(file));

/** The same of configs and weights alone: what is computed from token ids depends on nothing else. */
export const weightsFingerprint = (dir: string): Promise<string> => fingerprintOf(dir, describesModel);

/** The same of a folder's tokenizer alone. */
export async function tokenizerFingerprint(dir: string): Promise<string> {
  return hashOf(
    dir,
    (await filesIn(dir)).filter((file) => TOKENIZER_FILES.has(file)),
  );
}

async function fingerprintOf(dir: string, counts: (file: string) => boolean): Promise<string> {
  const files = await filesIn(dir);
  if (!files.some(describesModel)) {
    throw new UserError({
      code: 'model.no-config',
      message: 'The folder holds neither a model nor an adapter.',
      where: dir,
      fix: 'Give the folder that holds config.json and model.safetensors, or adapter_config.json.',
    });
  }
  return hashOf(dir, files.filter(counts));
}

const filesIn = (dir: string): Promise<string[]> =>
  readdir(dir).catch((error: unknown) => {
    throw explainFileError(error, dir, 'read');
  });

async function hashOf(dir: string, files: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of [...files].sort()) await addFile(hash, dir, file);
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
