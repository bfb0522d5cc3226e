import { dynamicCodebook, fourBitCodebook, type FourBitKind } from './codebook.js';
import { laneSum } from './lane-sum.js';

/** Scales of a nested quantisation ("double quantisation"): 8 bits each, with scales of their own and one offset. */
export interface NestedScales {
  /** A code for each block of weights. */
  readonly codes: Uint8Array;
  /** What a code stands for, 256 values. */
  readonly values: Float32Array;
  /** Scale of each block of `blockSize` codes. */
  readonly absmax: Float32Array;
  /** Codes a block. */
  readonly blockSize: number;
  /** Added to every decoded scale: the mean of the scales. */
  readonly offset: number;
}

/**
 * A weight in 4 bits as bitsandbytes holds it: row-major values in blocks that share a scale, the largest magnitude in
 * the block (https://arxiv.org/abs/2305.14314). value = values[code] · scale[block].
 */
export interface FourBitTensor {
  readonly kind: FourBitKind;
  readonly shape: readonly number[];
  /** Values a block; even. */
  readonly blockSize: number;
  /** Two codes a byte, the first in the high four bits. */
  readonly packed: Uint8Array;
  /** What a code stands for, 16 values. */
  readonly values: Float32Array;
  /** One a block. */
  readonly scales: Float32Array | NestedScales;
}

export interface FourBitOptions {
  readonly kind?: FourBitKind;
  /** Values a block. Default 64. */
  readonly blockSize?: number;
  /** Whether the scales are quantised, too. Default true. */
  readonly nested?: boolean;
}

/** What bitsandbytes takes. */
export const nestedBlockSize = 256;

/** What a scale of zero becomes where it is divided by. */
const smallestScale = Math.fround(1e-38);

const product = (shape: readonly number[]): number => shape.reduce((total, size) => total * size, 1);

/**
 * Quantises float32 values to 4 bits, bit for bit as bitsandbytes does on a CPU. A block of zeros stays zero.
 *
 * @throws RangeError when there is a NaN or an infinity: a block that held one would be lost
 */
export function quantizeFourBit(
  data: Float32Array,
  shape: readonly number[],
  { kind = 'nf4', blockSize = 64, nested = true }: FourBitOptions = {},
): FourBitTensor {
  if (data.length !== product(shape)) throw new RangeError(`${data.length} values do not fill (${shape.join(', ')})`);
  const { values, nearest } = fourBitCodebook(kind);
  const packed = new Uint8Array(Math.ceil(data.length / 2));
  const scales = blockMaxima(data, blockSize);
  const full = Math.floor(data.length / blockSize);
  // The library keeps the scale of a last, shorter block above zero, and divides by it.
  if (full < scales.length) scales[full] = Math.max(smallestScale, scales[full]!);
  for (let block = 0; block < scales.length; block++) {
    const scale = scales[block]!;
    const inverse = inverseOf(scale);
    const end = Math.min(data.length, (block + 1) * blockSize);
    for (let i = block * blockSize; i < end; i += 2) {
      const high = nearest(Math.fround(block < full ? data[i]! * inverse : data[i]! / scale));
      const next = i + 1 < end ? data[i + 1]! : 0;
      const low = nearest(Math.fround(block < full ? next * inverse : next / scale));
      packed[i >> 1] = (high << 4) | low;
    }
  }
  return { kind, shape, blockSize, packed, values, scales: nested ? nestScales(scales) : scales };
}

/** Rounds scales to 8 bits: their mean is taken off, what remains is quantised in blocks of 256. */
export function nestScales(scales: Float32Array): NestedScales {
  const { values, nearest } = dynamicCodebook();
  const offset = Math.fround(laneSum(scales) / Math.max(1, scales.length));
  const centred = scales.map((scale) => scale - offset);
  const absmax = blockMaxima(centred, nestedBlockSize);
  const codes = Uint8Array.from(centred, (scale, i) => {
    const largest = absmax[Math.floor(i / nestedBlockSize)]!;
    return largest === 0 ? 0 : nearest(Math.fround(scale * inverseOf(largest)));
  });
  return { codes, values, absmax, blockSize: nestedBlockSize, offset };
}

/** The scales of a tensor's blocks, decoded where they are nested. */
export function scalesOf({ scales }: Pick<FourBitTensor, 'scales'>): Float32Array {
  if (scales instanceof Float32Array) return scales;
  const { codes, values, absmax, blockSize, offset } = scales;
  return Float32Array.from(
    codes,
    (code, i) => Math.fround(values[code]! * absmax[Math.floor(i / blockSize)]!) + offset,
  );
}

/**
 * The values from `start` on, as float32.
 *
 * @param scales those of the tensor, where they are decoded already
 */
export function dequantizeFourBit(
  tensor: FourBitTensor,
  { start = 0, count, scales = scalesOf(tensor) }: { start?: number; count?: number; scales?: Float32Array } = {},
): Float32Array {
  const { packed, values, blockSize } = tensor;
  const out = new Float32Array(count ?? product(tensor.shape) - start);
  for (let i = 0; i < out.length; i++) {
    const at = start + i;
    const byte = packed[at >> 1]!;
    out[i] = values[(at & 1) === 0 ? byte >> 4 : byte & 15]! * scales[Math.floor(at / blockSize)]!;
  }
  return out;
}

const inverseOf = (scale: number): number => Math.fround(1 / Math.max(smallestScale, scale));

/**
 * The largest magnitude of each block of values.
 *
 * @throws RangeError when there is a NaN or an infinity
 */
export function blockMaxima(data: Float32Array, blockSize: number): Float32Array {
  const maxima = new Float32Array(Math.ceil(data.length / blockSize));
  for (let block = 0; block < maxima.length; block++) {
    let largest = 0;
    const end = Math.min(data.length, (block + 1) * blockSize);
    for (let i = block * blockSize; i < end; i++) {
      const magnitude = Math.abs(data[i]!);
      if (!(magnitude <= 3.4028234663852886e38))
        throw new RangeError(`value ${i} is ${data[i]!}, which no block can hold`);
      if (magnitude > largest) largest = magnitude;
    }
    maxima[block] = largest;
  }
  return maxima;
}
