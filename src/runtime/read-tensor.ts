import { closeSync, openSync, readSync } from 'node:fs';
import { zeros, type DType, type Tensor } from '../graph/tensor.js';

/** Bytes asked of the system at a time: it gives at most 2 GiB. */
const AT_ONCE = 2 ** 30;

/**
 * A tensor's bytes from a file, little-endian and row-major.
 *
 * @throws Error where the file ends within it
 */
export function readTensor(from: {
  readonly file: string;
  readonly offset: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
}): Tensor {
  const { file, offset, dtype, shape } = from;
  const tensor = zeros(dtype, shape);
  const bytes = new Uint8Array(tensor.data.buffer);
  const handle = openSync(file, 'r');
  try {
    for (let done = 0; done < bytes.length;) {
      const count = readSync(handle, bytes, done, Math.min(AT_ONCE, bytes.length - done), offset + done);
      if (count === 0) throw new Error(`${file} ends within the tensor at ${offset}`);
      done += count;
    }
  } finally {
    closeSync(handle);
  }
  return tensor;
}
