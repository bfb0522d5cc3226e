import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { philox4x32, randomStateSchema, restoreStream, stream, type RandomStream } from './random.js';

const words = (random: RandomStream, count: number): number[] => Array.from({ length: count }, () => random.uint32());

describe('philox4x32', () => {
  // Known answers of the authors' Random123 library, tests/kat_vectors.
  it.each([
    {
      counter: [0, 0, 0, 0],
      key: [0, 0] as const,
      expected: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    },
    {
      counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      key: [0xffffffff, 0xffffffff] as const,
      expected: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    },
    {
      counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      key: [0xa4093822, 0x299f31d0] as const,
      expected: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    },
  ])('gives the published answer for counter $counter', ({ counter, key, expected }) => {
    const out = new Uint32Array(4);
    philox4x32(Uint32Array.from(counter), key, out);
    expect([...out]).toEqual(expected);
  });
});

describe('stream', () => {
  it('stays the same from release to release', () => {
    const random = stream(42, 'rollout', 3, 1, 0);
    expect(words(random, 5)).toEqual([0x469db00a, 0x0d8885c8, 0xdacbd224, 0x137971fe, 0xc904875a]);
  });

  it('gives the same words for the same path and others for another', () => {
    expect(words(stream(1, 'a', 2), 8)).toEqual(words(stream(1, 'a', 2), 8));
    const paths = [
      stream(1, 'a', 2),
      stream(2, 'a', 2),
      stream(1, 'a', '2'),
      stream(1, 'a2'),
      stream(1, 'a'),
      stream(1),
    ];
    expect(new Set(paths.map((random) => words(random, 2).join(' '))).size).toBe(paths.length);
  });

  it('refuses numbers that have no exact meaning', () => {
    expect(() => stream(0.5)).toThrow(RangeError);
    expect(() => stream(0, 'a', Number.NaN)).toThrow(RangeError);
    expect(() => stream(0, 2 ** 53)).toThrow(RangeError);
  });

  it('goes on from a saved state bit for bit', () => {
    const draw = fc.constantFrom<(random: RandomStream) => number>(
      (random) => random.uint32(),
      (random) => random.uniform(),
      (random) => random.normal(),
      (random) => random.integer(10),
    );
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.array(draw, { maxLength: 20 }), fc.array(draw), (seed, before, after) => {
        const random = stream(seed, 'resume');
        for (const next of before) next(random);
        const saved = randomStateSchema.parse(JSON.parse(JSON.stringify(random.state())));
        const restored = restoreStream(saved);
        expect(after.map((next) => next(restored))).toEqual(after.map((next) => next(random)));
      }),
    );
  });

  it('goes past 2^32 blocks', () => {
    const { key } = stream(0).state();
    const before = restoreStream({ key, position: 4 * 2 ** 32 - 4 });
    const beyond = restoreStream({ key, position: 4 * 2 ** 32 });
    words(before, 4);
    expect(words(before, 4)).toEqual(words(beyond, 4));
    expect(words(restoreStream({ key, position: 4 * 2 ** 32 }), 4)).not.toEqual(words(stream(0), 4));
  });

  it('refuses a state that none of its streams has', () => {
    expect(() => restoreStream({ key: 'abc', position: 0 })).toThrow();
    expect(() => restoreStream({ key: '0'.repeat(32), position: -1 })).toThrow();
  });
});

describe('distributions', () => {
  it('draws uniform numbers with the mean and variance of [0, 1)', () => {
    const { mean, variance, draws } = moments(40_000, (random) => random.uniform());
    expect(mean).toBeCloseTo(1 / 2, 2);
    expect(variance).toBeCloseTo(1 / 12, 2);
    expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...draws)).toBeLessThan(1);
  });

  it('draws normal numbers with mean 0, variance 1, and the tails of the bell', () => {
    const { mean, variance, draws } = moments(40_000, (random) => random.normal());
    expect(Math.abs(mean)).toBeLessThan(4 / Math.sqrt(draws.length));
    expect(Math.abs(variance - 1)).toBeLessThan(4 * Math.sqrt(2 / draws.length));
    const beyondTwo = draws.filter((x) => Math.abs(x) > 2).length / draws.length;
    expect(Math.abs(beyondTwo - 0.0455)).toBeLessThan(0.005);
  });

  it('draws every integer below n equally often', () => {
    const n = 7;
    const counts = new Array<number>(n).fill(0);
    const { draws } = moments(35_000, (random) => random.integer(n));
    for (const drawn of draws) counts[drawn]! += 1;
    const expected = draws.length / n;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 99.9 % quantile of χ² with 6 degrees of freedom.
    expect(chiSquare).toBeLessThan(22.46);
  });

  it('keeps integers within [0, n) for every n, the largest included', () => {
    const largest = Number.MAX_SAFE_INTEGER;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: largest }), fc.nat(), (n, seed) => {
        const drawn = stream(seed).integer(n);
        expect(Number.isSafeInteger(drawn) && drawn >= 0 && drawn < n).toBe(true);
      }),
    );
    expect(stream(0).integer(1)).toBe(0);
    expect(() => stream(0).integer(0)).toThrow(RangeError);
    expect(() => stream(0).integer(1.5)).toThrow(RangeError);
  });

  it('shuffles into a permutation, every order equally often', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 200 }), fc.nat(), (n, seed) => {
        expect([...stream(seed).shuffle(n)].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
      }),
    );
    const random = stream(5);
    const counts = new Map<string, number>();
    const draws = 12_000;
    for (let i = 0; i < draws; i += 1) {
      const order = random.shuffle(3).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - draws / 6) ** 2 / (draws / 6), 0);
    // 99.9 % quantile of χ² with 5 degrees of freedom.
    expect(chiSquare).toBeLessThan(20.52);
  });
});

function moments(count: number, draw: (random: RandomStream) => number) {
  const random = stream(20_111, 'moments');
  const draws = Array.from({ length: count }, () => draw(random));
  const mean = draws.reduce((sum, x) => sum + x, 0) / count;
  const variance = draws.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (count - 1);
  return { mean, variance, draws };
}
