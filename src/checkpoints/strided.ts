import { readExactly, withFile } from './files.js';
import type { TensorInfo } from './safetensors.js';
import type { TensorSource } from './safetensors-writer.js';
import { storedBytes, type StoredDtype } from './stored-dtype.js';

/** A tensor in a file whose elements need not lie in row-major order. */
export interface StridedTensor {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  /** Elements from one to the next along each axis. */
  readonly strides: readonly number[];
  readonly file: string;
  /** Absolute offset of the first element, in bytes. */
  readonly offset: number;
}

const elementsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

const isRowMajor = (shape: readonly number[], strides: readonly number[]): boolean =>
  shape.includes(0) ||
  shape.every((length, axis) => length === 1 || strides[axis] === elementsOf(shape.slice(axis + 1)));

/** The tensor where it lies, or undefined where it cannot be read there: elements out of order, or at an odd address. */
export function inPlace({ name, dtype, shape, strides, file, offset }: StridedTensor): TensorInfo | undefined {
  const size = storedBytes(dtype);
  if (offset % size !== 0 || !isRowMajor(shape, strides)) return undefined;
  return { name, dtype, shape, file, offset, length: elementsOf(shape) * size };
}

/** The tensor in row-major order. Its part of the file is read when its turn comes, as a whole. */
export function sourceOfStrided({ name, dtype, shape, strides, file, offset }: StridedTensor): TensorSource {
  const size = storedBytes(dtype);
  return {
    name,
    dtype,
    shape,
    async *bytes() {
      const count = elementsOf(shape);
      if (count === 0) return;
      const span = shape.reduce((last, length, axis) => last + (length - 1) * strides[axis]!, 0) + 1;
      const stored = new Uint8Array(span * size);
      await withFile(file, (handle) => readExactly(handle, file, stored, offset));
      yield isRowMajor(shape, strides) ? stored : gather(stored, size, shape, strides);
    },
  };
}

function gather(stored: Uint8Array, size: number, shape: readonly number[], strides: readonly number[]): Uint8Array {
  const out = new Uint8Array(elementsOf(shape) * size);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < out.length; to += size) {
    for (let byte = 0; byte < size; byte++) out[to + byte] = stored[from * size + byte]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= shape[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}
