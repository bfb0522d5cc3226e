import { fitsInt4, INT4_BLOCK, int4Names } from '../../nn/context.js';
import { requireTensors } from '../model-folder.js';
import { readFloatRange, type TensorInfo } from '../safetensors.js';
import type { TensorSource } from '../safetensors-writer.js';
import { bytesOf } from '../stored-dtype.js';
import { rowBlocks, type ReadRows } from './int8.js';
import { writePrepared } from './write-prepared.js';

/** An entry that stands for zero. */
const ZERO = 8;

/** What the entry of largest magnitude becomes, so that it is exact. */
const LOWEST = -8;

/**
 * Rounds rows to blocks of 4 bits: w ≈ scale · (entry − 8), the scale such that the block's value of largest magnitude,
 * whichever its sign, is kept as it is.
 *
 * @param values rows one after the other, each of whole blocks
 * @param packed half as many bytes as values: two entries a byte, the first in the lower half
 * @param scales one a block
 */
export function quantizeInt4(values: Float32Array, packed: Uint8Array, scales: Float32Array): void {
  for (let block = 0; block < scales.length; block++) {
    const start = block * INT4_BLOCK;
    let extreme = 0;
    for (let i = start; i < start + INT4_BLOCK; i++) if (Math.abs(values[i]!) > Math.abs(extreme)) extreme = values[i]!;
    const scale = Math.fround(extreme / LOWEST);
    scales[block] = scale;
    const inverse = scale === 0 ? 0 : 1 / scale;
    for (let i = start; i < start + INT4_BLOCK; i += 2) {
      packed[i / 2] = entryOf(values[i]! * inverse) | (entryOf(values[i + 1]! * inverse) << 4);
    }
  }
}

const entryOf = (steps: number): number => Math.min(15, Math.max(0, Math.round(steps) + ZERO));

/**
 * Writes the 4-bit form of matrices of a checkpoint into a safetensors file, under the names that a graph asks for;
 * those whose rows are no whole blocks are left out. A block of rows is in memory at a time.
 */
export async function writeInt4(
  weights: ReadonlyMap<string, TensorInfo>,
  names: Iterable<string>,
  file: string,
): Promise<void> {
  const matrices = requireTensors(weights, names).filter(({ shape }) => fitsInt4(shape[1]!));
  await writePrepared(file, matrices.flatMap(sourcesOf), 'int4');
}

function sourcesOf(info: TensorInfo): TensorSource[] {
  const [rows, columns] = info.shape as [number, number];
  const blocks = columns / INT4_BLOCK;
  const read: ReadRows = (start, count) => readFloatRange(info, start * columns, count * columns);
  const { packed, scale } = int4Names(info.name);
  async function* rounded(part: 'packed' | 'scales'): AsyncGenerator<Uint8Array> {
    for await (const { values, count } of rowBlocks(rows, columns, read)) {
      const form = { packed: new Uint8Array(values.length / 2), scales: new Float32Array(count * blocks) };
      quantizeInt4(values, form.packed, form.scales);
      yield bytesOf(form[part]);
    }
  }
  return [
    { name: scale, dtype: 'F32', shape: [rows, blocks], bytes: () => rounded('scales') },
    { name: packed, dtype: 'U8', shape: [rows, blocks, INT4_BLOCK / 2], bytes: () => rounded('packed') },
  ];
}
