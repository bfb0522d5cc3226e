import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import { readExactly, withFile } from './files.js';
import { corrupt, headerCap, parseHeader, type SafetensorsHeader, type TensorInfo } from './safetensors-header.js';
import { decodeFloats, isFloat, storedBytes, viewAs, type FloatDtype, type StoredArray } from './stored-dtype.js';

export type { SafetensorsHeader, TensorInfo } from './safetensors-header.js';

/** Bytes before the header: its length as a little-endian uint64. */
const prefixBytes = 8;
/** Elements read at a time where a tensor is converted on the way. */
const blockElements = 1 << 20;

/**
 * Reads and checks the header of a safetensors file (https://huggingface.co/docs/safetensors), and nothing else of it.
 *
 * @throws UserError when the file is missing, truncated, or its header does not describe its data exactly
 */
export const readHeader = (file: string): Promise<SafetensorsHeader> =>
  withFile(file, async (handle, size) => {
    if (size < prefixBytes) throw corrupt(file, `it is ${size} bytes long`);
    const prefix = Buffer.alloc(prefixBytes);
    await readExactly(handle, file, prefix, 0);
    const length = prefix.readBigUInt64LE();
    if (length > BigInt(size - prefixBytes)) {
      throw corrupt(file, `it says that its header has ${length.toString()} bytes, but the file has ${size}`);
    }
    if (length > BigInt(headerCap)) {
      throw corrupt(file, `its header of ${length.toString()} bytes exceeds the limit of ${headerCap}`);
    }
    const json = Buffer.alloc(Number(length));
    await readExactly(handle, file, json, prefixBytes);
    return parseHeader(file, json, prefixBytes + json.byteLength, size);
  });

/** A tensor's elements as they are stored; F16 and BF16 as raw bits. One range read. */
export const readTensor = (info: TensorInfo): Promise<StoredArray> =>
  withFile(info.file, async (handle) => {
    const bytes = new Uint8Array(info.length);
    await readExactly(handle, info.file, bytes, info.offset);
    return viewAs(info.dtype, bytes.buffer);
  });

/** A tensor's bytes, block by block. */
export async function* streamBytes(info: TensorInfo): AsyncGenerator<Uint8Array> {
  const blockBytes = blockElements * 4;
  for (let start = 0; start < info.length; start += blockBytes) {
    const block = new Uint8Array(Math.min(blockBytes, info.length - start));
    await withFile(info.file, (handle) => readExactly(handle, info.file, block, info.offset + start));
    yield block;
  }
}

/**
 * `count` elements from element `start` on, as float32: F16 and BF16 exactly, F64 rounded to nearest.
 *
 * @throws UserError when the tensor holds integers
 */
export async function readFloatRange(info: TensorInfo, start: number, count: number): Promise<Float32Array> {
  const dtype = floatDtypeOf(info);
  const out = new Float32Array(count);
  await withFile(info.file, async (handle) => {
    for (let done = 0; done < count; done += blockElements) {
      const target = out.subarray(done, Math.min(done + blockElements, count));
      const bytes = new Uint8Array(target.length * storedBytes(dtype));
      await readExactly(handle, info.file, bytes, info.offset + (start + done) * storedBytes(dtype));
      decodeFloats(dtype, bytes.buffer, target);
    }
  });
  return out;
}

/** A whole tensor as float32, with the rules of `readFloatRange`. */
export async function readFloats(info: TensorInfo): Promise<Tensor<'float32'>> {
  const data = await readFloatRange(info, 0, info.length / storedBytes(info.dtype));
  return { dtype: 'float32', shape: info.shape, data };
}

function floatDtypeOf(info: TensorInfo): FloatDtype {
  if (isFloat(info.dtype)) return info.dtype;
  throw new UserError({
    code: 'checkpoint.not-float',
    message: `Tensor \`${info.name}\` holds ${info.dtype}, but weights must be F32, F16, BF16 or F64.`,
    where: info.file,
    fix: 'Give a model that is not quantised.',
  });
}
