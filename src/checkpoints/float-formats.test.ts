import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { narrowBF16, narrowF16, widenBF16, widenF16 } from './float-formats.js';

const widen = (convert: typeof widenF16, bits: number): number => {
  const out = new Float32Array(1);
  convert(Uint16Array.of(bits), out);
  return out[0]!;
};
const narrow = (convert: typeof narrowF16, value: number): number => {
  const out = new Uint16Array(1);
  convert(Float32Array.of(value), out);
  return out[0]!;
};

/** The value that the 16 bits of a binary16 number stand for, by the definition of the format. */
function binary16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

describe('binary16', () => {
  it('widens every one of its 65,536 values exactly', () => {
    const all = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
    const out = new Float32Array(all.length);
    widenF16(all, out);
    const wrong = [...all].filter((bits) => !Object.is(out[bits], binary16Value(bits)));
    expect(wrong).toEqual([]);
  });

  it('narrows what it widened to the same bits, NaN payloads aside', () => {
    const all = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
    const wide = new Float32Array(all.length);
    const back = new Uint16Array(all.length);
    widenF16(all, wide);
    narrowF16(wide, back);
    expect([...all].filter((bits) => !Number.isNaN(wide[bits]!) && back[bits] !== bits)).toEqual([]);
    expect([...all].filter((bits) => Number.isNaN(wide[bits]!) && !Number.isNaN(binary16Value(back[bits]!)))).toEqual(
      [],
    );
  });

  it.each([
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [65519.99609375, 0x7bff],
    [65520, 0x7c00],
    [-1e30, 0xfc00],
    [Infinity, 0x7c00],
    [2 ** -24, 0x0001],
    [2 ** -25, 0x0000],
    [1.0001 * 2 ** -25, 0x0001],
    [3 * 2 ** -25, 0x0002],
    [2 ** -14, 0x0400],
    [1023.5 * 2 ** -24, 0x0400],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [-0, 0x8000],
    [1e-45, 0x0000],
    [0.1, 0x2e66],
  ])('narrows %d to the known bits', (value, bits) => {
    expect(narrow(narrowF16, value)).toBe(bits);
  });

  it('narrows to the nearest of the two neighbours', () => {
    fc.assert(
      fc.property(fc.float({ min: -65504, max: 65504, noNaN: true }), (value) => {
        const bits = narrow(narrowF16, value);
        const error = Math.abs(binary16Value(bits) - value);
        const neighbours = [bits - 1, bits + 1].filter((n) => n >= 0 && n <= 0xffff).map(binary16Value);
        for (const neighbour of neighbours) {
          if (Number.isFinite(neighbour)) expect(error).toBeLessThanOrEqual(Math.abs(neighbour - value));
        }
      }),
    );
  });
});

describe('bfloat16', () => {
  it.each([
    [1, 0x3f80],
    [-0, 0x8000],
    [Infinity, 0x7f80],
    [-Infinity, 0xff80],
    [1 + 2 ** -8, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3f82],
    [1 + 2 ** -8 + 2 ** -20, 0x3f81],
    [3.4028234663852886e38, 0x7f80],
    [2 ** -149, 0x0000],
    [0.1, 0x3dcd],
    [Math.PI, 0x4049],
  ])('narrows %d to the known bits', (value, bits) => {
    expect(narrow(narrowBF16, value)).toBe(bits);
  });

  it('widens to the upper half of a float32, subnormals included, and narrows back to the same bits', () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const value = widen(widenBF16, bits);
      if (Number.isNaN(value)) expect(Number.isNaN(widen(widenBF16, narrow(narrowBF16, value)))).toBe(true);
      else if (narrow(narrowBF16, value) !== bits) expect.fail(`bits ${bits} did not come back`);
    }
    expect(widen(widenBF16, 0x0001)).toBe(2 ** -133);
    expect(widen(widenBF16, 0x7f7f)).toBe(3.3895313892515355e38);
  });

  it('keeps a NaN whose payload sits in the dropped bits a NaN', () => {
    const floats = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001).buffer);
    const out = new Uint16Array(2);
    narrowBF16(floats, out);
    expect([...out]).toEqual([0x7fc0, 0xffc0]);
  });
});
