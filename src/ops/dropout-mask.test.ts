import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { runEmitted } from '../../tests/support/onnx-session.js';
import type { Graph } from '../graph/graph.js';
import type { Dim } from '../graph/dim.js';
import { elementCount, tensor, zeros, type Tensor } from '../graph/tensor.js';
import { Runtime } from '../runtime/runtime.js';
import { add, dropoutMask } from './build.js';
import { newGraph } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

interface Drawn {
  readonly seed: number;
  readonly salt: number;
  readonly rate: number;
  readonly shape: readonly number[];
  /** What stands along an axis of rows. */
  readonly rows?: { readonly axis: number; readonly ids: readonly number[] } | undefined;
}

function maskGraph({ salt, rate, rows }: Pick<Drawn, 'salt' | 'rate' | 'rows'>, shape: readonly Dim[]): Graph {
  const graph = newGraph();
  const drawn = { shape, rate, salt, dtype: 'float32' as const };
  const seed = graph.input('seed', 'uint32', []);
  const ids = rows && { axis: rows.axis, ids: graph.input('ids', 'int32', [shape[rows.axis]!]) };
  graph.output('mask', dropoutMask(seed, ids === undefined ? drawn : { ...drawn, rows: ids }));
  return graph;
}

const feedsOf = ({ seed, rows }: Pick<Drawn, 'seed' | 'rows'>): Record<string, Tensor> => ({
  seed: tensor('uint32', [], [seed]),
  ...(rows && { ids: tensor('int32', [rows.ids.length], rows.ids) }),
});

async function mask(drawn: Drawn): Promise<Tensor> {
  const program = await runtime.compile(maskGraph(drawn, drawn.shape));
  const { mask } = await program.run(feedsOf(drawn));
  await program.dispose();
  return mask!;
}

/** 1 where the element was dropped. */
const dropped = ({ data }: Tensor): Uint8Array => Uint8Array.from(data as Float32Array, (value) => Number(value === 0));

/** Index along each axis of an element of a tensor. */
function placeOf(at: number, shape: readonly number[]): number[] {
  const place: number[] = [];
  for (const size of [...shape].reverse()) {
    place.unshift(at % size);
    at = Math.floor(at / size);
  }
  return place;
}

/** What the op is to compute, in 32-bit integers of JavaScript. */
function maskOfLoops({ seed, salt, rate, shape, rows }: Drawn): Float32Array {
  const [first, second, third] = [
    [0xc2b2ae34, 0x27d4eb2f],
    [0x165667b0, 0x85ebca6b],
    [0x9e3779b0, 0x2c1b3c6d],
  ] as const;
  const mix = (x: number, [a, b]: readonly [number, number]): number => {
    const scrambled = Math.imul(x, Math.imul(x, a) + b) >>> 0;
    return (scrambled + (scrambled >>> 16)) >>> 0;
  };
  const key = (number: number): number => mix(mix(seed + Math.imul(number, 0x9e3779b1), first), third);
  const hash = (coordinate: number, number: number): number => {
    const own = key(number);
    return mix(mix(coordinate + own, first) + mix(own, first), second);
  };
  const salted = (hashed: number, which: number): number =>
    mix(hashed + mix(key(1000 + which) + Math.imul(salt, 0x9e3779b1), third), second);
  return Float32Array.from({ length: elementCount(shape) }, (_, at) => {
    const place = placeOf(at, shape).map((index, axis) => (axis === rows?.axis ? rows.ids[index]! : index));
    const column = place.pop()!;
    const [r, c] = [0, 1]
      .map((which) => {
        const hashes = (place.length === 0 ? [0] : place).map((index, axis) => hash(index, 2 * axis + which));
        const row = hashes.reduce((outer, inner) => mix(outer + inner, first));
        return [salted(row, which), salted(hash(column, 200 + which), 2 + which)];
      })
      .reduce<[number[], number[]]>(
        ([r, c], pair) => [
          [...r, pair[0]!],
          [...c, pair[1]!],
        ],
        [[], []],
      );
    const bits = Math.imul((2 * (r[0]! + c[0]!) + 1) % 2 ** 32, (r[1]! + c[1]!) % 2 ** 32);
    return bits < Math.round((1 - rate) * 2 ** 32) - 2 ** 31 ? 1 / (1 - rate) : 0;
  });
}

/** How many standard deviations a count of `trials` events of the given probability is from its mean. */
const deviations = (count: number, trials: number, probability: number): number =>
  Math.abs(count - trials * probability) / Math.sqrt(trials * probability * (1 - probability));

/** How many positions are 1 in both. */
const jointly = (a: Uint8Array, b: Uint8Array): number =>
  a.reduce((count, value, position) => count + value * b[position]!, 0);

const SHAPE = [50, 2000] as const;
const COUNT = 100_000;

describe('dropoutMask', () => {
  it('is the same integer function on either emission as in a plain loop', async () => {
    const drawn = fc
      .record({
        seed: fc.nat(2 ** 32 - 1),
        salt: fc.nat(1000),
        rate: fc.double({ min: 0.01, max: 0.99, noNaN: true }),
        shape: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 5 }),
      })
      .chain((counted) =>
        fc
          .integer({ min: 0, max: counted.shape.length - 1 })
          .chain((axis) =>
            fc
              .option(
                fc.array(fc.nat(2 ** 31 - 1), { minLength: counted.shape[axis]!, maxLength: counted.shape[axis]! }),
              )
              .map((ids): Drawn => ({ ...counted, rows: ids === null ? undefined : { axis, ids } })),
          ),
      );
    await fc.assert(
      fc.asyncProperty(drawn, async (case_) => {
        const expected = maskOfLoops(case_);
        const onCpu = await mask(case_);
        expect(onCpu.shape).toEqual(case_.shape);
        expect(onCpu.data).toEqual(expected);
        const elsewhere = await runEmitted(maskGraph(case_, case_.shape), 'webgpu', feedsOf(case_));
        expect(elsewhere['mask']!.data).toEqual(expected);
      }),
      { numRuns: 15, examples: [[{ seed: 2 ** 32 - 1, salt: 1, rate: 0.1, shape: [3, 2049] }]] },
    );
  });

  it('is a row’s own, whatever batch the row is in and however far it is padded', async () => {
    const graph = newGraph();
    const seed = graph.input('seed', 'uint32', []);
    const ids = graph.input('ids', 'int32', ['B']);
    const drawn = { rate: 0.3, salt: 5, dtype: 'float32' as const };
    const tokens = graph.input('tokens', 'int32', ['B', 'T']);
    const [batch, length] = tokens.shape as [Dim, Dim];
    const hidden = dropoutMask(seed, { ...drawn, shape: [batch, length, 6], rows: { ids, axis: 0 } });
    const weights = dropoutMask(seed, { ...drawn, shape: [2, batch, length, length], rows: { ids, axis: 1 } });
    graph.output('tokens_read', add(tokens, 0)); // what no node reads gives no size
    graph.output('hidden', hidden);
    graph.output('weights', weights);
    const program = await runtime.compile(graph);
    const draw = (rows: readonly number[], length: number): Promise<Record<string, Tensor>> =>
      program.run({
        ...feedsOf({ seed: 9, rows: { axis: 0, ids: rows } }),
        tokens: zeros('int32', [rows.length, length]),
      });
    const whole = await draw([0, 1, 2, 3], 7);
    const at = ({ shape, data }: Tensor, place: readonly number[]): number =>
      Number(data[place.reduce((flat, index, axis) => flat * shape[axis]! + index, 0)]);
    for (const [rows, length] of [
      [[0, 1], 7],
      [[2, 3], 5],
      [[3, 0, 2], 6],
      [[1], 3],
    ] as const) {
      const part = await draw(rows, length);
      for (const [name, axis] of [
        ['hidden', 0],
        ['weights', 1],
      ] as const) {
        const drawnHere = part[name]!;
        const [values, there] = [drawnHere.data as Float32Array, whole[name]!];
        const same = values.map((_, flat) => {
          const place = placeOf(flat, drawnHere.shape);
          return at(there, place.with(axis, rows[place[axis]!]!));
        });
        expect(values, `${name} of ${rows.join(', ')}`).toEqual(same);
      }
    }
    await program.dispose();
  });

  it('is the same for a seed on every run and in every graph, and another for another seed or salt', async () => {
    const at = { seed: 3, salt: 1, rate: 0.5, shape: [64] };
    const program = await runtime.compile(maskGraph(at, at.shape));
    const first = await program.run(feedsOf({ seed: 3 }));
    const second = await program.run(feedsOf({ seed: 3 }));
    expect(second).toEqual(first);
    expect(await mask(at)).toEqual(first['mask']);
    expect(await mask({ ...at, seed: 4 })).not.toEqual(first['mask']);
    expect(await mask({ ...at, salt: 2 })).not.toEqual(first['mask']);
  });

  it.each([0.05, 0.1, 0.5, 0.9])('drops a share of %d and scales the rest so that the mean stays', async (rate) => {
    for (const seed of [0, 1, 2 ** 32 - 1]) {
      const drawn = await mask({ seed, salt: 7, rate, shape: SHAPE });
      expect(new Set(drawn.data as Float32Array)).toEqual(new Set([0, Math.fround(1 / (1 - rate))]));
      const count = jointly(dropped(drawn), dropped(drawn));
      expect(deviations(count, COUNT, rate), `seed ${seed}: ${count} of ${COUNT}`).toBeLessThan(4.5);
    }
  });

  it('spreads the dropped elements evenly over short blocks', async () => {
    const rate = 0.25;
    const drawn = dropped(await mask({ seed: 12, salt: 3, rate, shape: SHAPE }));
    const blocks = Array.from({ length: COUNT / 20 }, (_, block) => drawn.subarray(20 * block, 20 * block + 20));
    const counts = blocks.map((block) => block.reduce((total, value) => total + value, 0));
    const variance = counts.reduce((total, count) => total + (count - 20 * rate) ** 2, 0) / counts.length;
    // A binomial's variance; its estimate from m blocks has a standard error of about √(2/m) of itself.
    const expected = 20 * rate * (1 - rate);
    expect(Math.abs(variance / expected - 1)).toBeLessThan(4.5 * Math.sqrt(2 / counts.length));
  });

  it.each([
    ['a matrix', [50, 2000]],
    ['hidden states', [8, 125, 100]],
    ['attention weights', [4, 10, 50, 50]],
  ])('drops neighbouring positions of %s independently', async (_, shape) => {
    const rate = 0.3;
    const drawn = dropped(await mask({ seed: 77, salt: 2, rate, shape }));
    // Each position is in two pairs, which share it: that widens the spread of the count.
    const spread = Math.sqrt(1 + (2 * rate) / (1 + rate));
    for (const lag of [1, 2, 3, 4, 7, 8, 16, 50, 64, 96, 100, 128, 256, 768, 1024, 2000, 2048, 2500, 4000, 12_500]) {
      const trials = COUNT - lag;
      const count = jointly(drawn.subarray(lag), drawn);
      expect(deviations(count, trials, rate * rate) / spread, `lag ${lag}`).toBeLessThan(4.5);
    }
  });

  it.each([
    ['rows and columns', [96, 2048], 0, 1],
    ['texts and tokens', [32, 32, 192], 0, 1],
    ['texts and channels', [32, 32, 192], 0, 2],
    ['tokens and channels', [8, 96, 256], 1, 2],
    ['heads and texts', [32, 32, 14, 14], 0, 1],
    ['heads and keys', [32, 8, 24, 32], 0, 3],
    ['queries and keys', [4, 16, 56, 56], 2, 3],
  ])('drops the corners of rectangles of %s independently', async (_, shape, down, right) => {
    const rate = 0.3;
    const drawn = dropped(await mask({ seed: 21, salt: 4, rate, shape }));
    const strideOf = (axis: number): number => shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const [rowStride, columnStride] = [strideOf(down), strideOf(right)];
    // Disjoint rectangles, so that their counts are independent; each number of dropped corners as often as it should be.
    for (const [high, wide] of [
      [1, 1],
      [1, 2],
      [2, 1],
      [2, 4],
      [4, 7],
    ] as const) {
      const counts = [0, 0, 0, 0, 0];
      for (let at = 0; at < drawn.length; at++) {
        const [row, column] = [
          Math.floor(at / rowStride) % shape[down]!,
          Math.floor(at / columnStride) % shape[right]!,
        ];
        if (row + high >= shape[down]! || column + wide >= shape[right]!) continue;
        if (Math.floor(row / high) % 2 === 1 || Math.floor(column / wide) % 2 === 1) continue;
        const [below, beside] = [high * rowStride, wide * columnStride];
        counts[drawn[at]! + drawn[at + below]! + drawn[at + beside]! + drawn[at + below + beside]!]!++;
      }
      const trials = counts.reduce((total, count) => total + count, 0);
      for (const [k, count] of counts.entries()) {
        const probability = [1, 4, 6, 4, 1][k]! * rate ** k * (1 - rate) ** (4 - k);
        expect(deviations(count, trials, probability), `${k} corners at ${high}, ${wide}`).toBeLessThan(4.5);
      }
    }
  });

  it('drops the corners of a row and a column in two salts or seeds independently', async () => {
    const [rate, shape] = [0.3, [100, 1000]];
    const draw = async (seed: number, salt: number): Promise<Uint8Array> =>
      dropped(await mask({ seed, salt, rate, shape }));
    for (const [a, b] of [
      [await draw(1, 1), await draw(1, 2)],
      [await draw(1, 1), await draw(2, 1)],
    ] as const) {
      const counts = [0, 0, 0, 0, 0];
      for (let at = 0; at + 1 < COUNT; at += 2) counts[a[at]! + a[at + 1]! + b[at]! + b[at + 1]!]!++;
      for (const [k, count] of counts.entries()) {
        const probability = [1, 4, 6, 4, 1][k]! * rate ** k * (1 - rate) ** (4 - k);
        expect(deviations(count, COUNT / 2, probability), `${k} corners`).toBeLessThan(4.5);
      }
    }
  });

  it.each(['seed', 'salt'] as const)('drops independently under neighbouring values of the %s', async (varied) => {
    const rate = 0.3;
    const drawn: Uint8Array[] = [];
    for (let value = 0; value < 8; value++) {
      drawn.push(dropped(await mask({ seed: 5, salt: 5, rate, shape: SHAPE, [varied]: value })));
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
      for (const [position, value] of dropped((await program.run(feedsOf({ seed })))['mask']!).entries()) {
        counts[position]! += value;
      }
    }
    for (const [position, count] of counts.entries()) {
      expect(deviations(count, runs, rate), `position ${position}: ${count} of ${runs}`).toBeLessThan(4.5);
    }
  });

  it('refuses a rate outside (0, 1), a seed that is no uint32 scalar, and ids that are not those of an axis', () => {
    const graph = newGraph();
    const seed = graph.input('seed', 'uint32', []);
    const drawn = { shape: [2, 3], rate: 0.1, salt: 1, dtype: 'float32' as const };
    expect(() => dropoutMask(seed, { ...drawn, rate: 0 })).toThrow('the rate 0 is not between 0 and 1');
    expect(() => dropoutMask(seed, { ...drawn, rate: 1 })).toThrow('the rate 1');
    expect(() => dropoutMask(graph.input('a', 'int32', []), drawn)).toThrow('takes uint32, got int32');
    expect(() => dropoutMask(graph.input('b', 'uint32', [1]), drawn)).toThrow('the seed must have 0 axes');
    expect(() => dropoutMask(seed, { ...drawn, shape: [] })).toThrow('takes a shape with an axis, got ()');
    const ids = graph.input('ids', 'int32', [2]);
    expect(() => dropoutMask(seed, { ...drawn, rows: { ids, axis: 1 } })).toThrow('ids and rows differ: 2 and 3');
    expect(() => dropoutMask(seed, { ...drawn, rows: { ids, axis: 2 } })).toThrow('axis 2 is outside (2, 3)');
    const floats = graph.input('floats', 'float32', [2]);
    expect(() => dropoutMask(seed, { ...drawn, rows: { ids: floats, axis: 0 } })).toThrow('takes int32, got float32');
  });
});
