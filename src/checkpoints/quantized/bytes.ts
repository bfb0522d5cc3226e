import { BYTES_BLOCK, bytesNames, fitsBytes, fitsNf4, NF4_VALUES, nf4Names } from '../../nn/context.js';
import { requireTensors } from '../model-folder.js';
import { readFloatRange, readFloats, streamBytes, type TensorInfo } from '../safetensors.js';
import type { TensorSource } from '../safetensors-writer.js';
import { bytesOf } from '../stored-dtype.js';
import { blockMaxima } from './four-bit.js';
import { rowBlocks, type ReadRows } from './int8.js';
import { writePrepared } from './write-prepared.js';

/** The byte that stands for zero. */
const ZERO = 128;

/** Steps from zero to the largest magnitude of a block. */
const LEVELS = 127;

/** The bytes of the two codes in a byte of NF4, the first in the high four bits, as one little-endian number. */
const PAIRS = Uint16Array.from({ length: 256 }, (_, byte) => {
  const entry = (code: number): number => ZERO + Math.round(NF4_VALUES[code]! * LEVELS);
  return entry(byte >> 4) | (entry(byte & 15) << 8);
});

/**
 * Writes the form in which a base in NF4 writes texts, under the names that a graph asks for: a byte a weight, in blocks of
 * as many as share a scale in NF4. Matrices that are in NF4 keep its scales, their codes' values are rounded; others, the
 * head, are rounded from what the model stores. Those whose rows are no whole blocks are left out.
 *
 * @param weights those of the model and its form in NF4
 */
export async function writeBytes(
  weights: ReadonlyMap<string, TensorInfo>,
  names: Iterable<string>,
  file: string,
): Promise<void> {
  const matrices = requireTensors(weights, names).filter(({ shape }) => fitsBytes(shape[1]!));
  const sources = matrices.flatMap((info) => {
    const [rows, columns] = info.shape as [number, number];
    const { packed, scale } = bytesNames(info.name);
    const parts = fitsNf4(info.name, [rows, columns]) ? partsOfCodes(weights, info) : roundedParts(info);
    const blocks = columns / BYTES_BLOCK;
    return [
      { name: scale, dtype: 'F32', shape: [rows, blocks], bytes: parts.scale },
      { name: packed, dtype: 'U8', shape: [rows, blocks, BYTES_BLOCK], bytes: parts.packed },
    ] satisfies TensorSource[];
  });
  await writePrepared(file, sources, 'bytes');
}

type Parts = Record<'scale' | 'packed', () => AsyncGenerator<Uint8Array>>;

function partsOfCodes(weights: ReadonlyMap<string, TensorInfo>, { name }: TensorInfo): Parts {
  const names = nf4Names(name);
  const [codes, absmax] = requireTensors(weights, [names.codes, names.absmax]) as [TensorInfo, TensorInfo];
  return {
    async *scale() {
      const { data } = await readFloats(absmax);
      yield bytesOf(data.map((value) => value / LEVELS));
    },
    async *packed() {
      for await (const block of streamBytes(codes)) yield bytesOf(Uint16Array.from(block, (byte) => PAIRS[byte]!));
    },
  };
}

function roundedParts(info: TensorInfo): Parts {
  const [rows, columns] = info.shape as [number, number];
  const read: ReadRows = (start, count) => readFloatRange(info, start * columns, count * columns);
  return {
    async *scale() {
      for await (const { values } of rowBlocks(rows, columns, read)) yield bytesOf(scalesOf(values));
    },
    async *packed() {
      for await (const { values } of rowBlocks(rows, columns, read)) yield roundToBytes(values, scalesOf(values));
    },
  };
}

const scalesOf = (values: Float32Array): Float32Array =>
  blockMaxima(values, BYTES_BLOCK).map((largest) => largest / LEVELS);

/** Rounds values to their bytes, nearest first; a block of zeros stays zero. */
function roundToBytes(values: Float32Array, scales: Float32Array): Uint8Array {
  const bytes = new Uint8Array(values.length);
  for (const [block, scale] of scales.entries()) {
    const inverse = scale === 0 ? 0 : 1 / scale;
    const end = (block + 1) * BYTES_BLOCK;
    for (let i = block * BYTES_BLOCK; i < end; i++) bytes[i] = ZERO + Math.round(values[i]! * inverse);
  }
  return bytes;
}
