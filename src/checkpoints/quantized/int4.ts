import { int4Block, int4Names } from '../../nn/context.js';
import { requireTensors } from '../model-folder.js';
import { readFloatRange, type TensorInfo } from '../safetensors.js';
import type { TensorSource } from '../safetensors-writer.js';
import { bytesOf } from '../stored-dtype.js';
import { rowBlocks, type ReadRows } from './int8.js';
import { writePrepared } from './write-prepared.js';

/** An entry that stands for zero. */
const ZERO = 8;

/** What the entry of largest magnitude becomes at full scale, so that it is exact. */
const LOWEST = -8;

/** Scales to try, of the one that keeps the largest entry: a smaller one cuts it off and serves all others better. */
const SHARES = [1, 0.9];

/**
 * Rounds rows to blocks of 4 bits: w ≈ scale · (entry − 8), with the scale that loses the least of those tried: one keeps
 * the block's value of largest magnitude, whichever its sign, as it is.
 *
 * @param values rows one after the other, each of whole blocks
 * @param packed half as many bytes as values: two entries a byte, the first in the lower half
 * @param scales one a block
 */
export function quantizeInt4(values: Float32Array, packed: Uint8Array, scales: Float32Array): void {
  const size = values.length / scales.length;
  for (let block = 0; block < scales.length; block++) {
    const entries = values.subarray(block * size, (block + 1) * size);
    let extreme = 0;
    for (const value of entries) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
    let [scale, least] = [0, Infinity];
    for (const share of SHARES) {
      const tried = Math.fround((extreme * share) / LOWEST);
      const lost = squaredError(entries, tried);
      if (lost < least) [scale, least] = [tried, lost];
    }
    scales[block] = scale;
    const inverse = inverseOf(scale);
    for (let i = 0; i < size; i += 2) {
      packed[(block * size + i) / 2] = entryOf(entries[i]! * inverse) | (entryOf(entries[i + 1]! * inverse) << 4);
    }
  }
}

function squaredError(entries: Float32Array, scale: number): number {
  const inverse = inverseOf(scale);
  let sum = 0;
  for (const value of entries) sum += (value - scale * (entryOf(value * inverse) - ZERO)) ** 2;
  return sum;
}

const inverseOf = (scale: number): number => (scale === 0 ? 0 : 1 / scale);

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
  const matrices = requireTensors(weights, names).filter(({ shape }) => int4Block(shape[1]!) !== undefined);
  await writePrepared(file, matrices.flatMap(sourcesOf), 'int4');
}

function sourcesOf(info: TensorInfo): TensorSource[] {
  const [rows, columns] = info.shape as [number, number];
  const block = int4Block(columns)!;
  const blocks = columns / block;
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
    { name: packed, dtype: 'U8', shape: [rows, blocks, block / 2], bytes: () => rounded('packed') },
  ];
}
