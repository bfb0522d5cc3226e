import { z } from 'zod';
import { narrowBF16, narrowF16, widenBF16, widenF16 } from './float-formats.js';

/** Element types of a safetensors file that this project reads, by their names there. */
export const storedDtypes = ['F64', 'F32', 'F16', 'BF16', 'I64', 'I32', 'I16', 'I8', 'U8', 'BOOL'] as const;
export const storedDtypeSchema = z.enum(storedDtypes);
export type StoredDtype = (typeof storedDtypes)[number];

export type FloatDtype = 'F64' | 'F32' | 'F16' | 'BF16';
export const isFloat = (dtype: StoredDtype): dtype is FloatDtype =>
  dtype === 'F64' || dtype === 'F32' || dtype === 'F16' || dtype === 'BF16';

const arrays = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const;

/** The typed array that holds a stored tensor's elements; F16 and BF16 as their raw 16 bits. */
export type StoredArray<D extends StoredDtype = StoredDtype> = InstanceType<(typeof arrays)[D]>;

export const storedBytes = (dtype: StoredDtype): number => arrays[dtype].BYTES_PER_ELEMENT;

/** A view of `buffer` as elements of `dtype`. */
export const viewAs = <D extends StoredDtype>(dtype: D, buffer: ArrayBuffer): StoredArray<D> =>
  new arrays[dtype](buffer) as StoredArray<D>;

/** Elements of `dtype` in `bytes` as float32 in `out`; exact but for F64, which is rounded to nearest. */
export function decodeFloats(dtype: FloatDtype, bytes: ArrayBuffer, out: Float32Array): void {
  if (dtype === 'F16') widenF16(new Uint16Array(bytes), out);
  else if (dtype === 'BF16') widenBF16(new Uint16Array(bytes), out);
  else if (dtype === 'F64') out.set(new Float64Array(bytes));
  else out.set(new Float32Array(bytes));
}

/** float32 values as the bytes of `dtype`, rounded to nearest, ties to even. F32 gives a view, not a copy. */
export function encodeFloats(dtype: FloatDtype, values: Float32Array): Uint8Array {
  if (dtype === 'F32') return bytesOf(values);
  if (dtype === 'F64') return bytesOf(Float64Array.from(values));
  const out = new Uint16Array(values.length);
  (dtype === 'F16' ? narrowF16 : narrowBF16)(values, out);
  return bytesOf(out);
}

export const bytesOf = (view: ArrayBufferView): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
