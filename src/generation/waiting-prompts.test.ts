import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { passesOf, WaitingPrompts } from './waiting-prompts.js';

describe('WaitingPrompts', () => {
  it('gives every prompt once, with all its places, in the order of first occurrence', () => {
    const prompts = fc.array(fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 2 }), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(prompts, fc.integer({ min: 1, max: 5 }), (all, places) => {
        const waiting = new WaitingPrompts(all);
        const taken = [];
        while (!waiting.isEmpty()) {
          const some = waiting.take(places);
          const completions = some.flatMap(({ positions }) => positions).length;
          expect(completions - some.at(-1)!.positions.length).toBeLessThan(places);
          if (!waiting.isEmpty()) expect(completions).toBeGreaterThanOrEqual(places);
          taken.push(...some);
        }
        for (const { ids, positions } of taken) for (const at of positions) expect(all[at]).toEqual(ids);
        expect(taken.flatMap(({ positions }) => positions).sort((a, b) => a - b)).toEqual([...all.keys()]);
        const firsts = taken.map(({ positions }) => positions[0]!);
        expect(firsts).toEqual(firsts.toSorted((a, b) => a - b));
        expect(new Set(taken.map(({ ids }) => ids.join())).size).toBe(taken.length);
      }),
    );
  });
});

describe('passesOf', () => {
  it('keeps padded batches within the tokens, one prompt at least in each', () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 20 });
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 100 }), (all, tokens) => {
        const prompts = all.map((length, at) => ({ ids: Array<number>(length).fill(0), positions: [at] }));
        const passes = passesOf(prompts, tokens);
        for (const pass of passes) {
          const longest = Math.max(...pass.map(({ ids }) => ids.length));
          if (pass.length > 1) expect(pass.length * longest).toBeLessThanOrEqual(tokens);
        }
        const given = passes.flat().flatMap(({ positions }) => positions);
        expect(given.sort((a, b) => a - b)).toEqual([...all.keys()]);
      }),
    );
  });
});
