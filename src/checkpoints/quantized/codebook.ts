import { NF4_VALUES } from '../../nn/context.js';

/**
 * Values that a few bits can stand for, and the search for the nearest. Values and results are those of bitsandbytes
 * (https://github.com/bitsandbytes-foundation/bitsandbytes), in float32 throughout.
 */
export interface Codebook {
  /** By code. */
  readonly values: Float32Array;
  /** The code for a value in [-1, 1]: that of the nearest of `values`, in the arithmetic of the library's CPU code. */
  readonly nearest: (x: number) => number;
}

/** Two kinds of 4-bit code, each 16 values of which the largest is 1. */
export type FourBitKind = 'nf4' | 'fp4';

/** One sign bit and three of a magnitude, in the library's order of codes, over the largest. Both zeros are 0. */
const magnitudes = [0, 0.0625, 8, 12, 4, 6, 2, 3].map((value) => value / 12);
const floatFour = [...magnitudes, ...magnitudes.map((value) => 0 - value)];

/**
 * 256 signed values that are dense around zero: seven decades, of 2^i values each on either side, and 0 and 1
 * (https://arxiv.org/abs/1511.04561, as bitsandbytes lays it out).
 */
function dynamicValues(): Float32Array {
  const f = Math.fround;
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const [steps, decade] = [2 ** i, f(10 ** (i - 6))];
    const step = f(f(1 - f(0.1)) / steps);
    // As torch.linspace(0.1, 1) rounds: once each, counted from the nearer end.
    const boundary = (k: number): number =>
      k < Math.floor((steps + 1) / 2) ? f(f(0.1) + step * k) : f(1 - step * (steps - k));
    for (let k = 0; k < steps; k++) {
      const value = f(decade * f(f(boundary(k) + boundary(k + 1)) / 2));
      values.push(value, -value);
    }
  }
  return Float32Array.from(values).sort();
}

const memoised = <T>(make: () => T): (() => T) => {
  let made: T | undefined;
  return () => (made ??= make());
};

/** The 256 values that nested scales are rounded to, found as on a CPU: for the nearest of 65,536 points in [-1, 1]. */
export const dynamicCodebook = memoised(() => gridCodebook(dynamicValues()));
const fourBit = {
  nf4: memoised(() => middlesCodebook(Float32Array.from(NF4_VALUES))),
  fp4: memoised(() => middlesCodebook(Float32Array.from(floatFour))),
};
export const fourBitCodebook = (kind: FourBitKind): Codebook => fourBit[kind]();

/** Points of the grid that `gridCodebook` rounds to. */
const gridSize = 65536;

/** Codes of ascending values, each for the grid points up to the middle between it and the next. */
function gridCodebook(values: Float32Array): Codebook {
  const f = Math.fround;
  const codeAt = new Uint8Array(gridSize);
  let code = 0;
  for (let i = 0; i < gridSize; i++) {
    const point = f(f((2 * i) / (gridSize - 1)) - 1);
    while (code < values.length - 1 && f(f(values[code]! + values[code + 1]!) / 2) < point) code++;
    codeAt[i] = code;
  }
  const nearest = (x: number): number => {
    const unit = f(Math.min(1, Math.max(-1, x)) + 1) / 2;
    return codeAt[Math.floor(f(unit * (gridSize - 1) + 0.5))]!;
  };
  return { values, nearest };
}

/** Cells a unit: so many that none holds two borders between 4-bit values. */
const cellsPerUnit = 2048;

/** Codes of 16 values in any order, each up to the middle between it and the next larger. */
function middlesCodebook(values: Float32Array): Codebook {
  const order = Uint8Array.from(values, (_, code) => code).sort((a, b) => values[a]! - values[b]! || a - b);
  const borders = new Float32Array(values.length).fill(Infinity);
  for (let i = 1; i < values.length; i++) {
    borders[i - 1] = Math.fround(values[order[i - 1]!]! + values[order[i]!]!) / 2;
  }
  const borderOf = Uint8Array.from({ length: 2 * cellsPerUnit + 1 }, (_, cell) =>
    borders.findIndex((border) => border >= cell / cellsPerUnit - 1),
  );
  const nearest = (x: number): number => {
    const at = borderOf[((x + 1) * cellsPerUnit) | 0]!;
    return order[x > borders[at]! ? at + 1 : at]!;
  };
  return { values, nearest };
}
