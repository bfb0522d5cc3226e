/**
 * IEEE 754 binary16 and bfloat16 to and from float32, bit for bit. Widening is exact (subnormals, infinities and NaN
 * payloads included); narrowing rounds to nearest, ties to even, as PyTorch's casts do.
 */

/** float32 bits of every binary16 value, by its 16 bits. Built on first use (256 KiB). */
let binary16Table: Uint32Array | undefined;

function float32BitsOfBinary16(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent !== 0) return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  // A subnormal half is fraction · 2⁻²⁴; in float32 it is normal: shift its leading one into the hidden bit.
  const shift = Math.clz32(fraction) - 21;
  return (sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13)) >>> 0;
}

function binary16Bits(): Uint32Array {
  binary16Table ??= Uint32Array.from({ length: 0x10000 }, (_, half) => float32BitsOfBinary16(half));
  return binary16Table;
}

const bitsOf = (floats: Float32Array): Uint32Array => new Uint32Array(floats.buffer, floats.byteOffset, floats.length);

/** Widens binary16 bits into `out` (same length). */
export function widenF16(halves: Uint16Array, out: Float32Array): void {
  const table = binary16Bits();
  const bits = bitsOf(out);
  for (let i = 0; i < halves.length; i++) bits[i] = table[halves[i]!]!;
}

/** Widens bfloat16 bits into `out` (same length). */
export function widenBF16(halves: Uint16Array, out: Float32Array): void {
  const bits = bitsOf(out);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
}

/** Rounds float32 values to bfloat16 bits in `out` (same length); NaN stays NaN (quiet, sign and high payload kept). */
export function narrowBF16(floats: Float32Array, out: Uint16Array): void {
  const bits = bitsOf(floats);
  for (let i = 0; i < floats.length; i++) {
    const value = bits[i]!;
    const isNaN = (value & 0x7fffffff) > 0x7f800000;
    out[i] = isNaN ? (value >>> 16) | 0x40 : (value + 0x7fff + ((value >>> 16) & 1)) >>> 16;
  }
}

/** Rounds float32 values to binary16 bits in `out` (same length); what exceeds 65504 by half a step or more becomes infinite. */
export function narrowF16(floats: Float32Array, out: Uint16Array): void {
  const bits = bitsOf(floats);
  for (let i = 0; i < floats.length; i++) out[i] = binary16BitsOf(bits[i]!);
}

function binary16BitsOf(value: number): number {
  const sign = (value >>> 16) & 0x8000;
  const magnitude = value & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  const exponent = magnitude >>> 23;
  if (exponent >= 143) return sign | 0x7c00;
  if (exponent >= 113) return sign | roundShift(magnitude - (112 << 23), 13);
  // Below 2⁻²⁵ everything rounds to zero (2⁻²⁵ itself is a tie, and zero is even).
  if (exponent < 102) return sign;
  return sign | roundShift((magnitude & 0x7fffff) | 0x800000, 126 - exponent);
}

/** value / 2^shift rounded to nearest, ties to even; a carry into the exponent is the right result. */
function roundShift(value: number, shift: number): number {
  const kept = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && (kept & 1) === 1) ? kept + 1 : kept;
}
