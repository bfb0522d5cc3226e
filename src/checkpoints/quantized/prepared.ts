import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheFolder } from '../converted.js';
import type { ChannelSource } from '../../models/channel-sources.js';
import { explainFileError } from '../files.js';
import { weightsFingerprint } from '../fingerprint.js';
import type { ModelFolder } from '../model-folder.js';
import { readHeader, type TensorInfo } from '../safetensors.js';
import { writeInt4 } from './int4.js';
import { writeInt8 } from './int8.js';

/** Part of the file's name: another way of rounding is another file. */
const VERSION = 3;

/**
 * The weights of a model and, beside them, the 8-bit or 4-bit form of its matrices. That form is made when a model is
 * first asked for and kept in the cache folder, under the fingerprint of its weights.
 *
 * @param matrices those to round, and where their inputs come from
 */
export async function withQuantized(
  folder: ModelFolder,
  matrices: ReadonlyMap<string, ChannelSource>,
  form: 'int8' | 'int4',
): Promise<ReadonlyMap<string, TensorInfo>> {
  const cache = join(cacheFolder(), form);
  const file = join(cache, `${await weightsFingerprint(folder.dir)}-v${VERSION}.safetensors`);
  if ((await stat(file).catch(() => undefined)) === undefined) {
    await mkdir(cache, { recursive: true }).catch((error: unknown) => {
      throw explainFileError(error, cache, 'write');
    });
    await (form === 'int8'
      ? writeInt8(folder.weights, matrices, file)
      : writeInt4(folder.weights, matrices.keys(), file));
  }
  return new Map([...folder.weights, ...(await readHeader(file)).tensors]);
}
