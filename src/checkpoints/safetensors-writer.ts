import { elementCount, type Tensor } from '../graph/tensor.js';
import { writeDirectly, type WriteFile } from './files.js';
import { readFloatRange, streamBytes, type TensorInfo } from './safetensors.js';
import {
  bytesOf,
  encodeFloats,
  isFloat,
  storedBytes,
  type FloatDtype,
  type StoredArray,
  type StoredDtype,
} from './stored-dtype.js';

/** A tensor to be written: what the header says of it, and its bytes, produced when their turn comes. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  bytes(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** Elements converted at a time. */
const blockElements = 1 << 20;

/** A tensor held in memory, in the stored form of its dtype. */
export const sourceOfArray = <D extends StoredDtype>(
  name: string,
  dtype: D,
  shape: readonly number[],
  data: StoredArray<D>,
): TensorSource => ({ name, dtype, shape, bytes: () => [bytesOf(data)] });

/** float32 values that are not in memory here: they are read part by part when they are written. */
export interface FloatsElsewhere {
  readonly shape: readonly number[];
  /** `count` elements from element `first`, in row-major order. */
  readPart(first: number, count: number): Promise<Tensor>;
}

/** float32 values, written as `dtype` (rounded to nearest, ties to even). */
export function sourceOfFloats(
  name: string,
  tensor: Tensor<'float32'> | FloatsElsewhere,
  dtype: FloatDtype = 'F32',
): TensorSource {
  const { shape } = tensor;
  const count = elementCount(shape);
  const part = async (first: number, size: number): Promise<Float32Array> =>
    'data' in tensor
      ? tensor.data.subarray(first, first + size)
      : ((await tensor.readPart(first, size)).data as Float32Array);
  return { name, dtype, shape, bytes: () => encodedParts(dtype, count, part) };
}

async function* encodedParts(
  dtype: FloatDtype,
  count: number,
  part: (first: number, size: number) => Promise<Float32Array>,
): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < count; start += blockElements) {
    yield encodeFloats(dtype, await part(start, Math.min(blockElements, count - start)));
  }
}

/** A tensor of another file, byte for byte. */
export const sourceOfFile = (info: TensorInfo): TensorSource => ({
  name: info.name,
  dtype: info.dtype,
  shape: info.shape,
  bytes: () => streamBytes(info),
});

/** A stored tensor converted to another float dtype; integers, and what has that dtype already, byte for byte. */
export function sourceInDtype(info: TensorInfo, dtype: FloatDtype): TensorSource {
  if (!isFloat(info.dtype) || info.dtype === dtype) return sourceOfFile(info);
  const count = info.length / storedBytes(info.dtype);
  return {
    name: info.name,
    dtype,
    shape: info.shape,
    bytes: () => encodedParts(dtype, count, (first, size) => readFloatRange(info, first, size)),
  };
}

/**
 * Writes a safetensors file, one block of a tensor in memory at a time. As the reference library does, tensors with
 * wider elements come first, then in the order of their names, and the data part starts at a multiple of 8 bytes: the
 * same tensors always make the same bytes.
 *
 * @throws Error when two sources share a name or a source yields more or fewer bytes than its dtype and shape need
 */
export async function writeSafetensors(
  path: string,
  sources: Iterable<TensorSource>,
  options: { metadata?: Readonly<Record<string, string>>; write?: WriteFile } = {},
): Promise<void> {
  const ordered = [...sources].sort(inFileOrder);
  const { metadata = { format: 'pt' }, write = writeDirectly } = options;
  await write(path, fileChunks(headerBytes(ordered, metadata), ordered));
}

/** The narrower floats are ranked above the integers of their width, as the reference library ranks them. */
const dtypeRank: Readonly<Record<StoredDtype, number>> = {
  BOOL: 0,
  U8: 1,
  I8: 2,
  I16: 3,
  F16: 4,
  BF16: 5,
  I32: 6,
  F32: 7,
  F64: 8,
  I64: 9,
};

const inFileOrder = (a: TensorSource, b: TensorSource): number =>
  dtypeRank[b.dtype] - dtypeRank[a.dtype] || Buffer.compare(Buffer.from(a.name), Buffer.from(b.name));

/** What a source's dtype and shape need, in bytes. */
export const byteLength = (source: Pick<TensorSource, 'dtype' | 'shape'>): number =>
  source.shape.reduce((product, size) => product * size, storedBytes(source.dtype));

function headerBytes(sources: readonly TensorSource[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const entries = Object.keys(metadata).length > 0 ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  const names = new Set(['__metadata__']);
  let offset = 0;
  for (const source of sources) {
    if (names.has(source.name)) throw new Error(`two tensors are named ${source.name}`);
    names.add(source.name);
    const end = offset + byteLength(source);
    const entry = { dtype: source.dtype, shape: source.shape, data_offsets: [offset, end] };
    entries.push(`${JSON.stringify(source.name)}:${JSON.stringify(entry)}`);
    offset = end;
  }
  const json = Buffer.from(`{${entries.join(',')}}`, 'utf8');
  const padded = Math.ceil(json.byteLength / 8) * 8;
  const bytes = Buffer.alloc(8 + padded, ' ');
  bytes.writeBigUInt64LE(BigInt(padded));
  bytes.set(json, 8);
  return bytes;
}

async function* fileChunks(header: Uint8Array, sources: readonly TensorSource[]): AsyncGenerator<Uint8Array> {
  yield header;
  for (const source of sources) {
    let written = 0;
    for await (const chunk of source.bytes()) {
      written += chunk.byteLength;
      yield chunk;
    }
    if (written !== byteLength(source)) {
      throw new Error(`tensor ${source.name} gave ${written} bytes where ${byteLength(source)} belong`);
    }
  }
}
