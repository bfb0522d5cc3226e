import type { ChannelSource } from '../../models/channel-sources.js';
import { int8Names } from '../../nn/context.js';
import { requireTensors } from '../model-folder.js';
import { readFloatRange, type TensorInfo } from '../safetensors.js';
import { sourceOfArray, type TensorSource } from '../safetensors-writer.js';
import { bytesOf } from '../stored-dtype.js';
import { writePrepared } from './write-prepared.js';

/** Largest magnitude of an 8-bit integer on either side of zero. */
const LEVELS = 127;

/** Elements of a matrix in memory at a time as float32. */
const BLOCK = 1 << 22;

/** How many times the median of all channels an outlier is at least. */
const OUTLIER = 6;

/** At most one channel in so many is an outlier. */
const RAREST = 16;

/** W (out, in) ≈ diag(outputScale) · Q · diag(inputScale), Q of 8 bits. */
export interface Int8Scales {
  /** (in): 1 but for columns that are outliers */
  readonly inputScale: Float32Array<ArrayBuffer>;
  /** (out) */
  readonly outputScale: Float32Array<ArrayBuffer>;
  /** Columns that are large themselves, or meet large inputs, ascending. */
  readonly inputOutliers: Int32Array<ArrayBuffer>;
  /** Rows that are large, ascending. */
  readonly outputOutliers: Int32Array<ArrayBuffer>;
}

export type ReadRows = (start: number, count: number) => Promise<Float32Array>;

/**
 * Scales and outliers of a matrix given by rows. A column is an outlier where its root mean square, relative to the rows'
 * mean magnitudes, is far above the others': it gets a scale of its own, so that it does not cost them their precision.
 * A row's scale is its largest magnitude that is left.
 *
 * @param inputs how large each channel of the input is, in any unit
 */
export async function int8Scales(
  rows: number,
  columns: number,
  read: ReadRows,
  inputs: ArrayLike<number> = [],
): Promise<Int8Scales> {
  const squares = new Float64Array(columns);
  await eachRow(rows, columns, read, (row) => {
    const mean = meanMagnitude(row);
    if (mean === 0) return;
    for (let i = 0; i < columns; i++) squares[i]! += (row[i]! / mean) ** 2;
  });
  const sizes = Float64Array.from(squares, Math.sqrt);
  const usual = median(sizes);
  const large = outliersOf(sizes);
  const inputScale = new Float32Array(columns).fill(1);
  for (const column of large) inputScale[column] = sizes[column]! / usual;
  const outputScale = new Float32Array(rows);
  const scaled = new Float32Array(columns);
  await eachRow(rows, columns, read, (row, o) => {
    for (let i = 0; i < columns; i++) scaled[i] = row[i]! / inputScale[i]!;
    outputScale[o] = largestMagnitude(scaled) / LEVELS;
  });
  const inputOutliers = Int32Array.from(new Set([...large, ...outliersOf(inputs)])).sort();
  return { inputScale, outputScale, inputOutliers, outputOutliers: Int32Array.from(outliersOf(outputScale)).sort() };
}

/** The channels that are far above the median, the largest first. */
function outliersOf(sizes: ArrayLike<number>): number[] {
  const bound = OUTLIER * median(sizes);
  return Array.from(sizes, (_, channel) => channel)
    .filter((channel) => bound > 0 && sizes[channel]! > bound)
    .sort((a, b) => sizes[b]! - sizes[a]!)
    .slice(0, Math.ceil(sizes.length / RAREST));
}

const median = (values: ArrayLike<number>): number =>
  Float64Array.from(values).sort()[Math.floor(values.length / 2)] ?? 0;

/** A row of Q, rounded to nearest. */
export function quantizeRow(row: Float32Array, inputScale: Float32Array, outputScale: number, out: Int8Array): void {
  const inverse = outputScale === 0 ? 0 : 1 / outputScale;
  for (let i = 0; i < row.length; i++) out[i] = Math.round((row[i]! / inputScale[i]!) * inverse);
}

/**
 * Writes the 8-bit form of matrices of a checkpoint into a safetensors file, both as they lie and transposed, under the
 * names that a graph asks for. One matrix is in memory at a time, as bytes; as floats a block of its rows.
 */
export async function writeInt8(
  weights: ReadonlyMap<string, TensorInfo>,
  matrices: ReadonlyMap<string, ChannelSource>,
  file: string,
): Promise<void> {
  const sources: TensorSource[] = [];
  const sizes = new InputSizes(weights);
  for (const info of requireTensors(weights, matrices.keys())) {
    sources.push(...(await sourcesOf(info, await sizes.of(matrices.get(info.name)!, info.shape[1]!))));
  }
  await writePrepared(file, sources, 'int8');
}

/** How large the input channels of matrices are, as the weights before them tell. */
class InputSizes {
  readonly #rows = new Map<string, Float64Array>();

  constructor(private readonly weights: ReadonlyMap<string, TensorInfo>) {}

  async of(source: ChannelSource, channels: number): Promise<Float64Array> {
    const sizes = new Float64Array(channels).fill(1);
    if ('rows' in source) {
      for (const name of source.rows) {
        const rows = await this.#rowSizes(name);
        for (let channel = 0; channel < channels; channel++) sizes[channel]! *= rows[source.rowOf(channel)]!;
      }
      return sizes;
    }
    for (const name of source.writers) {
      const rows = await this.#rowSizes(name);
      for (let channel = 0; channel < channels; channel++) sizes[channel] = Math.max(sizes[channel]!, rows[channel]!);
    }
    const [norm] = requireTensors(this.weights, [source.norm]);
    const factors = await readFloatRange(norm!, 0, channels);
    return sizes.map((size, channel) => size * Math.abs(factors[channel]!));
  }

  /** Mean magnitude of each row, relative to the median row's. */
  async #rowSizes(name: string): Promise<Float64Array> {
    const known = this.#rows.get(name);
    if (known !== undefined) return known;
    const [info] = requireTensors(this.weights, [name]);
    const [rows, columns] = info!.shape as [number, number];
    const means = new Float64Array(rows);
    await eachRow(rows, columns, rowReader(info!), (row, o) => {
      means[o] = meanMagnitude(row);
    });
    const usual = median(means);
    const sizes = usual === 0 ? means.fill(1) : means.map((mean) => mean / usual);
    this.#rows.set(name, sizes);
    return sizes;
  }
}

const rowReader = (info: TensorInfo): ReadRows => {
  const columns = info.shape[1]!;
  return (start, count) => readFloatRange(info, start * columns, count * columns);
};

async function sourcesOf(info: TensorInfo, inputs: Float64Array): Promise<TensorSource[]> {
  const [rows, columns] = info.shape as [number, number];
  const read = rowReader(info);
  const scales = await int8Scales(rows, columns, read, inputs);
  const names = int8Names(info.name);

  async function* asItLies(): AsyncGenerator<Int8Array> {
    for await (const { values, start, count } of rowBlocks(rows, columns, read)) {
      const block = new Int8Array(count * columns);
      for (let o = 0; o < count; o++) {
        const range = [o * columns, (o + 1) * columns] as const;
        quantizeRow(
          values.subarray(...range),
          scales.inputScale,
          scales.outputScale[start + o]!,
          block.subarray(...range),
        );
      }
      yield block;
    }
  }
  async function* transposed(): AsyncGenerator<Uint8Array> {
    const all = new Int8Array(rows * columns);
    let start = 0;
    for await (const block of asItLies()) {
      transposeInto(all, rows, block, columns, start);
      start += block.length / columns;
    }
    yield bytesOf(all);
  }
  async function* lying(): AsyncGenerator<Uint8Array> {
    for await (const block of asItLies()) yield bytesOf(block);
  }
  return [
    sourceOfArray(names.inputScale, 'F32', [columns], scales.inputScale),
    sourceOfArray(names.outputScale, 'F32', [rows], scales.outputScale),
    sourceOfArray(names.inputOutliers, 'I32', [scales.inputOutliers.length], scales.inputOutliers),
    sourceOfArray(names.outputOutliers, 'I32', [scales.outputOutliers.length], scales.outputOutliers),
    { name: names.transposed, dtype: 'I8', shape: [rows, columns], bytes: lying },
    { name: names.weight, dtype: 'I8', shape: [columns, rows], bytes: transposed },
  ];
}

interface RowBlock {
  readonly values: Float32Array;
  readonly start: number;
  readonly count: number;
}

/** The rows of a matrix, some at a time. */
export async function* rowBlocks(rows: number, columns: number, read: ReadRows): AsyncGenerator<RowBlock> {
  const perBlock = Math.max(1, Math.floor(BLOCK / columns));
  for (let start = 0; start < rows; start += perBlock) {
    const count = Math.min(perBlock, rows - start);
    yield { values: await read(start, count), start, count };
  }
}

async function eachRow(
  rows: number,
  columns: number,
  read: ReadRows,
  use: (row: Float32Array, index: number) => void,
): Promise<void> {
  for await (const { values, start, count } of rowBlocks(rows, columns, read)) {
    for (let o = 0; o < count; o++) use(values.subarray(o * columns, (o + 1) * columns), start + o);
  }
}

function meanMagnitude(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += Math.abs(value);
  return sum / values.length;
}

function largestMagnitude(values: Float32Array): number {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  return largest;
}

/** Side of the squares that are transposed at a time, so that both stay in the cache. */
const TILE = 64;

/** Puts rows from `start` on of a matrix into its transpose, which has `rows` columns. */
function transposeInto(target: Int8Array, rows: number, block: Int8Array, columns: number, start: number): void {
  const count = block.length / columns;
  for (let left = 0; left < columns; left += TILE) {
    for (let top = 0; top < count; top += TILE) {
      for (let i = left; i < Math.min(left + TILE, columns); i++) {
        for (let o = top; o < Math.min(top + TILE, count); o++) target[i * rows + start + o] = block[o * columns + i]!;
      }
    }
  }
}
