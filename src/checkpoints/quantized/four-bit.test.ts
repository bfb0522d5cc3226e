import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dynamicCodebook, fourBitCodebook } from './codebook.js';
import { dequantizeFourBit, quantizeFourBit, scalesOf } from './four-bit.js';

const kinds = fc.constantFrom('nf4' as const, 'fp4' as const);
const weights = fc.float32Array({ minLength: 1, maxLength: 400, noNaN: true, min: -100, max: 100 });

describe('4-bit quantisation', () => {
  it('keeps every value within half the widest gap of its block, whatever the length', () => {
    fc.assert(
      fc.property(weights, kinds, fc.constantFrom(32, 64, 128), (data, kind, blockSize) => {
        const quantized = quantizeFourBit(data, [data.length], { kind, blockSize, nested: false });
        const scales = scalesOf(quantized);
        const sorted = Float32Array.from(quantized.values).sort();
        const widest = sorted.reduce((gap, value, i) => (i === 0 ? 0 : Math.max(gap, value - sorted[i - 1]!)), 0);
        dequantizeFourBit(quantized).forEach((value, i) => {
          const scale = scales[Math.floor(i / blockSize)]!;
          expect(Math.abs(value - data[i]!)).toBeLessThanOrEqual(scale * (widest / 2) * (1 + 1e-6) + 1e-37);
        });
      }),
    );
  });

  it('gives what it gave when its own result is quantised again', () => {
    fc.assert(
      fc.property(weights, kinds, (data, kind) => {
        const once = dequantizeFourBit(quantizeFourBit(data, [data.length], { kind, nested: false }));
        const twice = dequantizeFourBit(quantizeFourBit(once, [data.length], { kind, nested: false }));
        expect(twice).toEqual(once);
      }),
    );
  });

  it('dequantises any range as it does the whole', () => {
    fc.assert(
      fc.property(weights, fc.nat(399), fc.nat(399), (data, a, b) => {
        const [start, end] = [Math.min(a, b, data.length), Math.min(Math.max(a, b), data.length)];
        const quantized = quantizeFourBit(data, [data.length]);
        const part = dequantizeFourBit(quantized, { start, count: end - start });
        expect(part).toEqual(dequantizeFourBit(quantized).subarray(start, end));
      }),
    );
  });

  it('chooses the nearest value: of 16 exactly, of 256 up to the step of the grid', () => {
    fc.assert(
      fc.property(fc.float({ min: -1, max: 1, noNaN: true }), (x) => {
        for (const [book, step] of [
          [fourBitCodebook('nf4'), 1e-7],
          [fourBitCodebook('fp4'), 1e-7],
          [dynamicCodebook(), 2 / 65535],
        ] as const) {
          const best = book.values.reduce((least, value) => Math.min(least, Math.abs(value - x)), Infinity);
          expect(Math.abs(book.values[book.nearest(x)]! - x)).toBeLessThanOrEqual(best + step);
        }
      }),
    );
  });

  it('leaves zeros zero and takes an empty tensor', () => {
    expect([...dequantizeFourBit(quantizeFourBit(new Float32Array(128), [2, 64], { nested: false }))]).toEqual(
      new Array(128).fill(0),
    );
    expect(quantizeFourBit(new Float32Array(0), [0, 64]).packed).toEqual(new Uint8Array(0));
  });

  it('refuses a value that would spoil its block, and data of another shape', () => {
    expect(() => quantizeFourBit(Float32Array.of(1, NaN), [2])).toThrow('value 1 is NaN');
    expect(() => quantizeFourBit(Float32Array.of(1, Infinity), [2])).toThrow('value 1 is Infinity');
    expect(() => quantizeFourBit(Float32Array.of(1, 2), [3])).toThrow('2 values do not fill (3)');
  });
});
