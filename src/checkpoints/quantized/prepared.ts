import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheFolder } from '../converted.js';
import type { ChannelSource } from '../../models/channel-sources.js';
import { explainFileError } from '../files.js';
import { weightsFingerprint } from '../fingerprint.js';
import type { ModelFolder } from '../model-folder.js';
import { readHeader, type TensorInfo } from '../safetensors.js';
import { writeBytes } from './bytes.js';
import { writeInt4 } from './int4.js';
import { writeInt8 } from './int8.js';
import { writeNf4 } from './nf4.js';

/** Part of the file's name: another way of rounding is another file. */
const VERSION = 4;

type Write = (folder: ModelFolder, matrices: ReadonlyMap<string, ChannelSource>, file: string) => Promise<void>;

type Form = 'int8' | 'int4' | 'nf4' | 'bytes';

const WRITERS: Record<Form, Write> = {
  int8: ({ weights }, matrices, file) => writeInt8(weights, matrices, file),
  int4: ({ weights }, matrices, file) => writeInt4(weights, matrices.keys(), file),
  nf4: (folder, matrices, file) => writeNf4(folder, matrices.keys(), file),
  bytes: async (folder, matrices, file) =>
    writeBytes(await withQuantized(folder, matrices, 'nf4'), matrices.keys(), file),
};

/**
 * The weights of a model and, beside them, the 8-bit or a 4-bit form of its matrices. That form is made when a model is
 * first asked for and kept in the cache folder, under the fingerprint of its weights.
 *
 * @param matrices those to round, and where their inputs come from
 */
export async function withQuantized(
  folder: ModelFolder,
  matrices: ReadonlyMap<string, ChannelSource>,
  form: Form,
): Promise<ReadonlyMap<string, TensorInfo>> {
  const cache = join(cacheFolder(), form);
  const file = join(cache, `${await weightsFingerprint(folder.dir)}-v${VERSION}.safetensors`);
  if ((await stat(file).catch(() => undefined)) === undefined) {
    await mkdir(cache, { recursive: true }).catch((error: unknown) => {
      throw explainFileError(error, cache, 'write');
    });
    await WRITERS[form](folder, matrices, file);
  }
  // Bytes are made of NF4's codes, with which matrices that do not fit them multiply.
  const weights = form === 'bytes' ? await withQuantized(folder, matrices, 'nf4') : folder.weights;
  return new Map([...weights, ...(await readHeader(file)).tensors]);
}
