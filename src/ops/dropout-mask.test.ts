import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { runEmitted } from '../../tests/support/onnx-session.js';
import type { Graph } from '../graph/graph.js';
import type { Dim } from '../graph/dim.js';
import { elementCount, tensor, zeros, type Tensor } from '../graph/tensor.js';
import { Runtime } from '../runtime/runtime.js';
import { dropoutMask, mul } from './build.js';
import { newGraph } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

interface Drawn {
  readonly seed: number;
  readonly salt: number;
  readonly rate: number;
  readonly shape: readonly number[];
}

function maskGraph({ salt, rate }: Pick<Drawn, 'salt' | 'rate'>, shape: readonly Dim[]): Graph {
  const graph = newGraph();
  graph.output('mask', dropoutMask(graph.input('seed', 'uint32', []), shape, rate, salt, 'float32'));
  return graph;
}

const seedFeed = (seed: number): Record<string, Tensor> => ({ seed: tensor('uint32', [], [seed]) });

async function mask(drawn: Drawn): Promise<Tensor> {
  const program = await runtime.compile(maskGraph(drawn, drawn.shape));
  const { mask } = await program.run(seedFeed(drawn.seed));
  await program.dispose();
  return mask!;
}

/** 1 where the element was dropped. */
const dropped = ({ data }: Tensor): Uint8Array => Uint8Array.from(data as Float32Array, (value) => Number(value === 0));

/** What the op is to compute, in 32-bit integers of JavaScript. */
function maskOfLoops({ seed, salt, rate, shape }: Drawn): Float32Array {
  const scramble = (x: number, a: number, b: number): number => Math.imul(x, Math.imul(x, a) + b) >>> 0;
  const fold = (x: number, shift: number): number => (x + (x >>> shift)) >>> 0;
  const hash = (which: number, position: number): number => {
    const seeded = fold(scramble(seed + Math.imul(4 * salt + which, 0x9e3779b1), 0x7feb352c, 0x846ca68b), 15);
    const key = fold(scramble(seeded, 0x9e3779b0, 0x2c1b3c6d), 16);
    const mixed = fold(scramble(position + key, 0xc2b2ae34, 0x27d4eb2f), 16);
    return fold(scramble(mixed + scramble(key, 0xc2b2ae34, 0x27d4eb2f), 0x165667b0, 0x85ebca6b), 16);
  };
  return Float32Array.from({ length: elementCount(shape) }, (_, position) => {
    const [row, column] = [Math.floor(position / 2048), position % 2048];
    const unit = 2 * (hash(0, row) + hash(2, column)) + 1;
    const bits = Math.imul(unit % 2 ** 32, (hash(1, row) + hash(3, column)) % 2 ** 32);
    return bits < Math.round((1 - rate) * 2 ** 32) - 2 ** 31 ? 1 / (1 - rate) : 0;
  });
}

/** How many standard deviations a count of `trials` events of the given probability is from its mean. */
const deviations = (count: number, trials: number, probability: number): number =>
  Math.abs(count - trials * probability) / Math.sqrt(trials * probability * (1 - probability));

/** How many positions are 1 in both. */
const jointly = (a: Uint8Array, b: Uint8Array): number =>
  a.reduce((count, value, position) => count + value * b[position]!, 0);

const COUNT = 100_000;

describe('dropoutMask', () => {
  it('is the same integer function on either emission as in a plain loop', async () => {
    const drawn = fc.record({
      seed: fc.nat(2 ** 32 - 1),
      salt: fc.nat(1000),
      rate: fc.double({ min: 0.01, max: 0.99, noNaN: true }),
      shape: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(drawn, async (case_) => {
        const expected = maskOfLoops(case_);
        const onCpu = await mask(case_);
        expect(onCpu.shape).toEqual(case_.shape);
        expect(onCpu.data).toEqual(expected);
        const elsewhere = await runEmitted(maskGraph(case_, case_.shape), 'webgpu', seedFeed(case_.seed));
        expect(elsewhere['mask']!.data).toEqual(expected);
      }),
      {
        numRuns: 15,
        examples: [2, 2048, 2049].map((last) => [{ seed: 2 ** 32 - 1, salt: 1, rate: 0.1, shape: [3, last] }]),
      },
    );
  });

  it('depends on the position alone, however the shape is written', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 'T']);
    const seed = graph.input('seed', 'uint32', []);
    graph.output('y', mul(x, dropoutMask(seed, x.shape, 0.3, 5, 'float32')));
    const program = await runtime.compile(graph);
    for (const shape of [
      [4, 6],
      [1, 24],
      [2, 3],
    ]) {
      const ones = { ...zeros('float32', shape), data: new Float32Array(elementCount(shape)).fill(1) };
      const { y } = await program.run({ x: ones, ...seedFeed(9) });
      expect(y!.data).toEqual((await mask({ seed: 9, salt: 5, rate: 0.3, shape: [elementCount(shape)] })).data);
    }
  });

  it('is the same for a seed on every run and in every graph, and another for another seed or salt', async () => {
    const at = { seed: 3, salt: 1, rate: 0.5, shape: [64] };
    const program = await runtime.compile(maskGraph(at, at.shape));
    const first = await program.run(seedFeed(3));
    const second = await program.run(seedFeed(3));
    expect(second).toEqual(first);
    expect(await mask(at)).toEqual(first['mask']);
    expect(await mask({ ...at, seed: 4 })).not.toEqual(first['mask']);
    expect(await mask({ ...at, salt: 2 })).not.toEqual(first['mask']);
  });

  it.each([0.05, 0.1, 0.5, 0.9])('drops a share of %d and scales the rest so that the mean stays', async (rate) => {
    for (const seed of [0, 1, 2 ** 32 - 1]) {
      const drawn = await mask({ seed, salt: 7, rate, shape: [COUNT] });
      expect(new Set(drawn.data as Float32Array)).toEqual(new Set([0, Math.fround(1 / (1 - rate))]));
      const count = jointly(dropped(drawn), dropped(drawn));
      expect(deviations(count, COUNT, rate), `seed ${seed}: ${count} of ${COUNT}`).toBeLessThan(4.5);
    }
  });

  it('spreads the dropped elements evenly over short blocks', async () => {
    const rate = 0.25;
    const drawn = dropped(await mask({ seed: 12, salt: 3, rate, shape: [COUNT] }));
    const blocks = Array.from({ length: COUNT / 20 }, (_, block) => drawn.subarray(20 * block, 20 * block + 20));
    const counts = blocks.map((block) => block.reduce((total, value) => total + value, 0));
    const variance = counts.reduce((total, count) => total + (count - 20 * rate) ** 2, 0) / counts.length;
    // A binomial's variance; its estimate from m blocks has a standard error of about √(2/m) of itself.
    const expected = 20 * rate * (1 - rate);
    expect(Math.abs(variance / expected - 1)).toBeLessThan(4.5 * Math.sqrt(2 / counts.length));
  });

  it('drops neighbouring positions independently', async () => {
    const rate = 0.3;
    const drawn = dropped(await mask({ seed: 77, salt: 2, rate, shape: [COUNT] }));
    // Each position is in two pairs, which share it: that widens the spread of the count.
    const spread = Math.sqrt(1 + (2 * rate) / (1 + rate));
    for (const lag of [1, 2, 3, 4, 7, 8, 16, 64, 96, 128, 256, 768, 1024, 2048, 4096, 6144]) {
      const trials = COUNT - lag;
      const count = jointly(drawn.subarray(lag), drawn);
      expect(deviations(count, trials, rate * rate) / spread, `lag ${lag}`).toBeLessThan(4.5);
    }
  });

  it('drops the corners of rectangles independently, which rows and columns could tie together', async () => {
    const [rate, columns, rows] = [0.3, 2048, 96];
    const drawn = dropped(await mask({ seed: 21, salt: 4, rate, shape: [rows * columns] }));
    const corner = (row: number, column: number): number => drawn[row * columns + column]!;
    // Disjoint rectangles, so that their counts are independent; each number of dropped corners as often as it should be.
    for (const [down, right] of [
      [1, 1],
      [1, 2],
      [2, 1],
      [8, 64],
      [16, 512],
      [32, 1024],
    ] as const) {
      const counts = [0, 0, 0, 0, 0];
      for (let row = 0; row + down < rows; row++) {
        for (let column = 0; column + right < columns; column++) {
          if (Math.floor(row / down) % 2 === 1 || Math.floor(column / right) % 2 === 1) continue;
          const [below, beside] = [row + down, column + right];
          const sum = corner(row, column) + corner(below, column) + corner(row, beside) + corner(below, beside);
          counts[sum]!++;
        }
      }
      const trials = counts.reduce((total, count) => total + count, 0);
      for (const [k, count] of counts.entries()) {
        const probability = [1, 4, 6, 4, 1][k]! * rate ** k * (1 - rate) ** (4 - k);
        expect(deviations(count, trials, probability), `${k} corners at ${down}, ${right}`).toBeLessThan(4.5);
      }
    }
  });

  it.each(['seed', 'salt'] as const)('drops independently under neighbouring values of the %s', async (varied) => {
    const rate = 0.3;
    const drawn: Uint8Array[] = [];
    for (let value = 0; value < 8; value++) {
      drawn.push(dropped(await mask({ seed: 5, salt: 5, rate, shape: [COUNT], [varied]: value })));
    }
    for (const [i, a] of drawn.entries()) {
      for (const [j, b] of drawn.entries()) {
        if (j <= i) continue;
        for (const lag of [0, 1, 2]) {
          const count = jointly(a.subarray(lag), b);
          expect(deviations(count, COUNT - lag, rate * rate), `${i} and ${j}, lag ${lag}`).toBeLessThan(4.5);
        }
      }
    }
  });

  it('drops each position equally often over the seeds', async () => {
    const [rate, runs, shape] = [0.3, 2000, [8]];
    const program = await runtime.compile(maskGraph({ salt: 0, rate }, shape));
    const counts = new Uint32Array(8);
    for (let seed = 0; seed < runs; seed++) {
      for (const [position, value] of dropped((await program.run(seedFeed(seed)))['mask']!).entries()) {
        counts[position]! += value;
      }
    }
    for (const [position, count] of counts.entries()) {
      expect(deviations(count, runs, rate), `position ${position}: ${count} of ${runs}`).toBeLessThan(4.5);
    }
  });

  it('refuses a rate outside (0, 1) and a seed that is no uint32 scalar', () => {
    const graph = newGraph();
    const seed = graph.input('seed', 'uint32', []);
    expect(() => dropoutMask(seed, [2], 0, 1, 'float32')).toThrow('the rate 0 is not between 0 and 1');
    expect(() => dropoutMask(seed, [2], 1, 1, 'float32')).toThrow('the rate 1');
    expect(() => dropoutMask(graph.input('a', 'int32', []), [2], 0.1, 1, 'float32')).toThrow('takes uint32, got int32');
    expect(() => dropoutMask(graph.input('b', 'uint32', [1]), [2], 0.1, 1, 'float32')).toThrow(
      'the seed must have 0 axes',
    );
  });
});
