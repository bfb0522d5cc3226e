import type { FileHandle } from 'node:fs/promises';
import yauzl from 'yauzl';
import { UserError } from '../../errors.js';
import { readExactly, withFile } from '../files.js';
import type { StridedTensor } from '../strided.js';
import { storedBytes } from '../stored-dtype.js';
import { byteOffset, stateDictHost, tensorsOf, type View } from './state-dict.js';
import { ForbiddenName, PickleEnds, PickleFault, unpickle, type Pickled } from './unpickle.js';

/** Where the elements of storages lie in a file. */
type Storages = ReadonlyMap<string, { readonly offset: number; readonly length: number }>;

/** Pickles of state dicts are a few hundred bytes a tensor. */
const pickleCap = 100_000_000;
const firstRead = 1 << 20;

/**
 * Where the tensors of a file lie that `torch.save` wrote of a state dict, in its form since PyTorch 1.6 (a zip
 * archive) or before. The file's pickle is read as data: nothing of it is run, whatever it asks for.
 *
 * @throws UserError when the file is cut off or asks for anything but tensors
 */
export const openTorchFile = (file: string): Promise<Map<string, StridedTensor>> =>
  withFile(file, async (handle, size) => {
    try {
      const magic = Buffer.alloc(Math.min(4, size));
      await readExactly(handle, file, magic, 0);
      if (magic.subarray(0, 2).toString('latin1') === 'PK') return await openZip(file, handle, size);
      if (magic[0] === 0x80) return await openLegacy(file, handle, size);
      throw new PickleFault(
        magic.toString('latin1') === 'vers' ? 'it is a pointer of Git LFS' : 'it begins like no such file',
      );
    } catch (error) {
      throw explain(error, file);
    }
  });

function explain(error: unknown, file: string): unknown {
  if (error instanceof ForbiddenName) {
    return new UserError({
      code: 'checkpoint.unsafe-pickle',
      message: `The file asks for ${error.global}, which is no part of a tensor. Nothing of it was run.`,
      where: file,
      fix: 'Do not open it with other software either unless you trust its source; look for the model as .safetensors.',
    });
  }
  if (!(error instanceof PickleFault) && !(error instanceof PickleEnds)) return error;
  return new UserError({
    code: 'checkpoint.corrupt-torch-file',
    message: `This is not a whole file of tensors as PyTorch saves them: ${error.message}.`,
    where: file,
    fix: 'Copy or download the file again, or look for the model as .safetensors.',
  });
}

async function openZip(file: string, handle: FileHandle, size: number): Promise<Map<string, StridedTensor>> {
  const entries = await zipEntries(file, size);
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickle] = pickles;
  if (pickle === undefined || pickles.length > 1) throw new PickleFault(`it holds ${pickles.length} files data.pkl`);
  const root = pickle.slice(0, -'data.pkl'.length);
  const order = entries.get(`${root}byteorder`);
  if (order !== undefined && (await readRange(handle, file, order)).toString('latin1') !== 'little') {
    throw new PickleFault('its numbers are in big-endian order');
  }
  const range = entries.get(pickle)!;
  if (range.length > pickleCap) throw new PickleFault(`its data.pkl has ${range.length} bytes`);
  const views = tensorsOf(unpickle(await readRange(handle, file, range), stateDictHost).value);
  const storages: Storages = new Map(
    [...entries].flatMap(([name, entry]) =>
      name.startsWith(`${root}data/`) ? [[name.slice(root.length + 'data/'.length), entry] as const] : [],
    ),
  );
  return locate(file, views, storages);
}

/** The stored files of an archive by their names, each where its content lies. */
async function zipEntries(file: string, size: number): Promise<Map<string, { offset: number; length: number }>> {
  const found = new Map<string, { offset: number; length: number }>();
  try {
    const archive = await yauzl.openPromise(file, { autoClose: false });
    try {
      for await (const entry of archive.eachEntry()) {
        const { fileDataStart: offset } = await archive.readLocalFileHeaderPromise(entry, { minimal: true });
        const { fileName, compressionMethod, uncompressedSize: length } = entry;
        if (compressionMethod !== 0 || entry.isEncrypted()) {
          throw new PickleFault(`${fileName} in it is compressed or encrypted`);
        }
        if (offset + length > size) throw new PickleFault(`${fileName} in it reaches beyond its end`);
        if (found.has(fileName)) throw new PickleFault(`it holds ${fileName} twice`);
        found.set(fileName, { offset, length });
      }
    } finally {
      archive.close();
    }
  } catch (error) {
    if (error instanceof PickleFault || !(error instanceof Error) || 'code' in error) throw error;
    throw new PickleFault(`as a zip archive it is faulty (${error.message})`);
  }
  return found;
}

async function readRange(
  handle: FileHandle,
  file: string,
  { offset, length }: { offset: number; length: number },
): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await readExactly(handle, file, bytes, offset);
  return bytes;
}

const legacyMagic = 0x1950a86a20f9469cfc6cn;

/** Five pickles (a magic number, a version, the machine, the tensors, keys of storages), then storages with sizes. */
async function openLegacy(file: string, handle: FileHandle, size: number): Promise<Map<string, StridedTensor>> {
  const pickles = await readPickles(file, handle, size, 5);
  const [magic, version, machine, root, keys] = pickles.values as [Pickled, Pickled, Pickled, Pickled, Pickled];
  if (magic !== legacyMagic || version !== 1001) throw new PickleFault('it has not the magic number of such files');
  if (machine instanceof Map && machine.get('little_endian') === false) {
    throw new PickleFault('its numbers are in big-endian order');
  }
  const views = tensorsOf(root);
  if (!Array.isArray(keys)) throw new PickleFault('it does not name its storages');
  const dtypes = new Map([...views.values()].map(({ storage }) => [storage.key, storage.dtype]));
  const storages = new Map<string, { offset: number; length: number }>();
  let at = pickles.end;
  for (const key of keys as unknown[]) {
    const dtype = typeof key === 'string' ? dtypes.get(key) : undefined;
    if (dtype === undefined) throw new PickleFault(`no tensor uses its storage ${String(key)}`);
    const count = Number((await readRange(handle, file, { offset: at, length: 8 })).readBigInt64LE());
    const length = count * storedBytes(dtype);
    if (!(length >= 0 && at + 8 + length <= size))
      throw new PickleFault(`storage ${String(key)} reaches beyond its end`);
    storages.set(key as string, { offset: at + 8, length });
    at += 8 + length;
  }
  return locate(file, views, storages);
}

/** Consecutive pickles from the start of a file, of which no more is read than they need, rounded up to a power of 2. */
async function readPickles(
  file: string,
  handle: FileHandle,
  size: number,
  count: number,
): Promise<{ values: Pickled[]; end: number }> {
  for (let length = firstRead; ; length *= 2) {
    const bytes = await readRange(handle, file, { offset: 0, length: Math.min(length, size) });
    try {
      const values: Pickled[] = [];
      let end = 0;
      for (let i = 0; i < count; i++) {
        const read = unpickle(bytes, stateDictHost, end);
        values.push(read.value);
        ({ end } = read);
      }
      return { values, end };
    } catch (error) {
      if (!(error instanceof PickleEnds) || length >= size || length >= pickleCap) throw error;
    }
  }
}

function locate(file: string, views: ReadonlyMap<string, View>, storages: Storages): Map<string, StridedTensor> {
  const tensors = new Map<string, StridedTensor>();
  for (const [name, view] of views) {
    const { dtype, key, start, size } = view.storage;
    const stored = storages.get(key);
    if (stored === undefined) throw new PickleFault(`it lacks the storage of \`${name}\``);
    if ((start + size) * storedBytes(dtype) > stored.length) {
      throw new PickleFault(
        `the storage of \`${name}\` has ${stored.length} bytes where it names ${size} elements of ${dtype}`,
      );
    }
    const { shape, strides } = view;
    tensors.set(name, { name, dtype, shape, strides, file, offset: stored.offset + byteOffset(view) });
  }
  return tensors;
}
