import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { quantizeInt4 } from '../checkpoints/quantized/int4.js';
import { wrap } from '../graph/tensor.js';
import { stream } from '../random.js';
import { Runtime } from '../runtime/runtime.js';
import { bytesMatmul, int4Matmul } from './build.js';
import { newGraph } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

interface Rounded {
  readonly packed: Uint8Array;
  readonly scales: Float32Array;
}

function rounded(values: Float32Array, block: number): Rounded {
  const form = { packed: new Uint8Array(values.length / 2), scales: new Float32Array(values.length / block) };
  quantizeInt4(values, form.packed, form.scales);
  return form;
}

/** The matrix that a rounded one stands for. */
const restored = ({ packed, scales }: Rounded, block: number): Float32Array =>
  Float32Array.from({ length: 2 * packed.length }, (_, i) => {
    const entry = (packed[i >> 1]! >> (4 * (i % 2))) & 15;
    return scales[Math.floor(i / block)]! * (entry - 8);
  });

describe('quantizeInt4', () => {
  it('loses no more than the scale that keeps the largest of a block, and is off by no more than half a step but at its ends', () => {
    const value = fc.oneof(fc.float({ noNaN: true, min: -4, max: 4 }), fc.constantFrom(0, -2, 2));
    const blocks = fc
      .constantFrom(32, 64, 128)
      .chain((block) => fc.tuple(fc.constant(block), fc.array(value, { minLength: 2 * block, maxLength: 2 * block })));
    fc.assert(
      fc.property(blocks, ([block, list]) => {
        const values = Float32Array.from(list);
        const form = rounded(values, block);
        const back = restored(form, block);
        for (const [at, scale] of form.scales.entries()) {
          const part = values.subarray(at * block, (at + 1) * block);
          const largest = part.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
          let [lost, allowed] = [0, 0];
          for (const [i, original] of part.entries()) {
            const difference = Math.abs(back[at * block + i]! - original);
            lost += difference ** 2;
            const full = largest / -8;
            allowed += full === 0 ? 0 : (original - full * Math.max(-8, Math.min(7, Math.round(original / full)))) ** 2;
            const isInside = original / scale >= -8.5 && original / scale <= 7.5;
            if (isInside) expect(difference).toBeLessThanOrEqual(Math.abs(scale) * 0.5 * (1 + 1e-5) + 1e-42);
          }
          expect(lost).toBeLessThanOrEqual(allowed * (1 + 1e-5) + 1e-12);
        }
      }),
    );
  });

  it('cuts off a value that is alone at the end of a wide block', () => {
    const values = Float32Array.from({ length: 128 }, (_, i) => (i === 77 ? -8 : 0.9 * ((i % 15) - 7)));
    const { scales } = rounded(values, 128);
    expect(scales[0]).toBeCloseTo(0.9, 6);
  });
});

const forms = [
  { name: 'int4Matmul', multiply: int4Matmul, bits: 4, block: 32 },
  { name: 'int4Matmul', multiply: int4Matmul, bits: 4, block: 128 },
  { name: 'bytesMatmul', multiply: bytesMatmul, bits: 8, block: 64 },
];

describe.each(forms)('$name, blocks of $block', ({ name, multiply, bits, block }) => {
  const [inner, outer, width] = [2 * block, 24, (block * bits) / 8];
  const random = stream(2, name);
  const packed = Uint8Array.from({ length: outer * 2 * width }, () => random.integer(256));
  const scales = Float32Array.from({ length: outer * 2 }, () => random.normal() / 2 ** bits);
  const zero = 2 ** (bits - 1);
  const matrix = Float32Array.from({ length: outer * inner }, (_, i) => {
    const entry = bits === 8 ? packed[i]! : (packed[i >> 1]! >> (4 * (i % 2))) & 15;
    return scales[Math.floor(i / block)]! * (entry - zero);
  });

  async function product(rows: Float32Array, leading: readonly number[]): Promise<Float32Array> {
    const graph = newGraph();
    const names = ['A', 'B'].slice(0, leading.length);
    const x = graph.input('x', 'float32', [...names, inner]);
    const parts = {
      packed: graph.input('packed', 'uint8', [outer, 2, width]),
      scale: graph.input('scale', 'float32', [outer, 2]),
    };
    graph.output('y', multiply(x, parts));
    const program = await runtime.compile(graph);
    const { y } = await program.run({
      x: wrap('float32', [...leading, inner], rows),
      packed: wrap('uint8', [outer, 2, width], packed),
      scale: wrap('float32', [outer, 2], scales),
    });
    expect(y!.shape).toEqual([...leading, outer]);
    return y!.data as Float32Array;
  }

  it('multiplies with the matrix that the entries stand for, but for 8 bits of each block of the left side', async () => {
    const rows = Float32Array.from({ length: 6 * inner }, () => random.normal());
    const y = await product(rows, [2, 3]);
    for (let r = 0; r < 6; r++) {
      for (let n = 0; n < outer; n++) {
        let [exact, allowed] = [0, 1e-5];
        for (let start = 0; start < inner; start += block) {
          let [largest, magnitude] = [0, 0];
          for (let k = start; k < start + block; k++) {
            exact += rows[r * inner + k]! * matrix[n * inner + k]!;
            largest = Math.max(largest, Math.abs(rows[r * inner + k]!));
            magnitude += Math.abs(matrix[n * inner + k]!);
          }
          allowed += (largest / 254) * magnitude;
        }
        expect(Math.abs(y[r * outer + n]! - exact)).toBeLessThanOrEqual(allowed);
      }
    }
  });

  it('computes a row whatever it is batched with', async () => {
    const rows = Float32Array.from({ length: 5 * inner }, () => random.normal());
    const together = await product(rows, [5]);
    for (let r = 0; r < 5; r++) {
      const alone = await product(rows.slice(r * inner, (r + 1) * inner), [1]);
      for (const [n, value] of alone.entries()) {
        // The blocks' sums may be added in another order.
        let magnitude = 0;
        for (let k = 0; k < inner; k++) magnitude += Math.abs(rows[r * inner + k]! * matrix[n * inner + k]!);
        expect(Math.abs(together[r * outer + n]! - value)).toBeLessThanOrEqual(1e-6 * magnitude);
      }
    }
  });

  it('refuses what does not fit', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['N', inner]);
    const parts = {
      packed: graph.input('packed', 'uint8', [outer, 2, width]),
      scale: graph.input('scale', 'float32', [outer, 2]),
    };
    expect(() => multiply(graph.input('narrow', 'float32', ['N', block]), parts)).toThrow(
      `a row of the left side must be (${inner}), got (${block})`,
    );
    expect(() => multiply(x, { ...parts, scale: graph.input('few', 'float32', [outer, 1]) })).toThrow('the scales');
    expect(() => multiply(x, { ...parts, packed: parts.scale })).toThrow('takes uint8');
    const odd = graph.input('odd', 'uint8', [outer, 2, width + 1]);
    expect(() => multiply(x, { ...parts, packed: odd })).toThrow('is none of 256, 128');
  });
});
