import { createHash } from 'node:crypto';
import { readdir, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { bytesText, UserError } from '../errors.js';
import { createFolderAtomic } from '../runs/atomic.js';
import { requireSpace } from '../runs/disk-space.js';
import { writeFault } from '../runs/file-faults.js';
import { isTemporaryName } from '../runs/leftovers.js';
import { addContent } from './fingerprint.js';
import { readHeader, type TensorInfo } from './safetensors.js';
import { byteLength, writeSafetensors, type TensorSource } from './safetensors-writer.js';

/** Part of every key: what was converted by other rules is converted anew. */
const rules = 1;
const weightsFile = 'model.safetensors';
/** After so many milliseconds an unfinished conversion is taken for abandoned. */
const abandonedAfter = 24 * 60 * 60 * 1000;

const CONVERSION = 'Converting the weights, without which they cannot be used,';
const OTHER_FOLDER = 'Make room there, or name another folder with the environment variable DUANZI_CACHE.';

/** Where this program keeps what it can make again: `DUANZI_CACHE`, else `duanzi` in the user's cache folder. */
export function cacheFolder(): string {
  const { DUANZI_CACHE: own, XDG_CACHE_HOME: shared } = process.env;
  if (own !== undefined && own !== '') return own;
  return join(shared !== undefined && shared !== '' ? shared : join(homedir(), '.cache'), 'duanzi');
}

/**
 * Tensors in a form that can be read in place, which the files that they come from are not in: converted once, one at a
 * time, into a `.safetensors` of the cache, and found there afterwards. Its folder is named by the content and time of
 * those files and by `what` was done, and appears whole or not at all, whoever else converts the same.
 *
 * @param from the files that the sources read
 * @throws UserError (exit code 3) when there is no space for them
 */
export async function converted(
  sources: readonly TensorSource[],
  from: Iterable<string>,
  what: string,
): Promise<ReadonlyMap<string, TensorInfo>> {
  if (sources.length === 0) return new Map();
  const parent = join(cacheFolder(), 'converted');
  const folder = join(parent, await keyOf(sources, from, what));
  const made = await openEntry(folder, sources);
  if (made !== undefined) return made;
  const bytes = sources.reduce((sum, source) => sum + byteLength(source), 0);
  const explained = (error: unknown): never => {
    throw explain(error, parent, bytes);
  };
  await removeAbandoned(parent).catch(explained);
  await requireSpace(parent, bytes, { code: 'file.disk', what: CONVERSION, fix: OTHER_FOLDER });
  await createFolderAtomic(folder, (temporary) => writeSafetensors(join(temporary, weightsFile), sources)).catch(
    explained,
  );
  const entry = await openEntry(folder, sources);
  if (entry === undefined) throw new Error(`${folder} was written, but does not hold what it should`);
  return entry;
}

async function keyOf(sources: readonly TensorSource[], from: Iterable<string>, what: string): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([rules, what, sources.map(describe)]));
  for (const file of [...new Set(from)].sort()) {
    hash.update(`\0${(await stat(file, { bigint: true })).mtimeNs.toString()}\0`);
    await addContent(hash, file);
  }
  return hash.digest('hex');
}

const describe = ({ name, dtype, shape }: Pick<TensorSource, 'name' | 'dtype' | 'shape'>): string =>
  JSON.stringify([name, dtype, shape]);

/** The tensors of an entry, or undefined where there is none; one that is damaged is removed. */
async function openEntry(
  folder: string,
  sources: readonly TensorSource[],
): Promise<ReadonlyMap<string, TensorInfo> | undefined> {
  if ((await stat(folder).catch(() => undefined)) === undefined) return undefined;
  try {
    const { tensors } = await readHeader(join(folder, weightsFile));
    const wanted = sources.map(describe).sort();
    const found = [...tensors.values()].map(describe).sort();
    if (wanted.join('\n') === found.join('\n')) return tensors;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
  }
  await rm(folder, { recursive: true, force: true });
  return undefined;
}

/** Unfinished conversions of processes that ended before they did. */
async function removeAbandoned(parent: string): Promise<void> {
  for (const name of await readdir(parent).catch(() => [])) {
    const path = join(parent, name);
    const stats = isTemporaryName(name) ? await stat(path).catch(() => undefined) : undefined;
    if (stats !== undefined && Date.now() - stats.mtimeMs > abandonedAfter) {
      await rm(path, { recursive: true, force: true });
    }
  }
}

function explain(error: unknown, parent: string, bytes: number): unknown {
  const fault = writeFault(error, parent);
  if (!(fault instanceof UserError)) return fault;
  const { code, exitCode } = fault;
  const message = `${CONVERSION} needs ${bytesText(bytes)}. ${fault.message}`;
  return new UserError({ code, message, where: parent, fix: OTHER_FOLDER, exitCode, cause: error });
}
