import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { stream } from '../random.js';
import { filteredProbabilities } from './filtered-probabilities.js';
import { SamplerScratch, sampleToken, selectCandidates } from './sampler.js';
import { unfiltered, type SamplingSettings } from './sampling-settings.js';

const logit = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true, min: -20, max: 20 }),
  // Ties and masked tokens.
  fc.constantFrom(-3, 0, 0.5, 2, -Infinity),
);
const cases = fc.record({
  logits: fc
    .array(logit, { minLength: 1, maxLength: 120 })
    .filter((row) => row.some((value) => value > -Infinity))
    .map((row) => Float32Array.from(row)),
  settings: fc.record<SamplingSettings>({
    temperature: fc.constantFrom(0, 0.1, 0.7, 0.8, 1, 1.3),
    topK: fc.constantFrom(0, 1, 2, 5, 20, 1000),
    topP: fc.oneof(fc.constantFrom(1, 0.95, 0.5), fc.double({ min: 0.001, max: 0.999, noNaN: true })),
    minP: fc.constantFrom(0, 0, 0.05, 0.5, 1),
    repetitionPenalty: fc.constantFrom(1, 0.9, 1.2),
  }),
  history: fc.array(fc.nat(1000), { maxLength: 6 }),
});

const within = (history: readonly number[], logits: Float32Array): number[] => history.map((id) => id % logits.length);

describe('selectCandidates', () => {
  it('finds what sorting the whole vocabulary finds', () => {
    const shared = new Map<number, SamplerScratch>();
    fc.assert(
      fc.property(cases, ({ logits, settings, history }) => {
        const scratch = shared.get(logits.length) ?? new SamplerScratch(logits.length);
        shared.set(logits.length, scratch);
        const seen = within(history, logits);
        const expected = filteredProbabilities(logits, settings, seen);

        const count = selectCandidates(logits, settings, scratch, seen);
        const found = new Float64Array(logits.length);
        for (let i = 0; i < count; i += 1) found[scratch.tokens[i]!] = scratch.work[i]! / scratch.mass;
        const kept = (probabilities: Float64Array) => [...probabilities.keys()].filter((t) => probabilities[t]! > 0);
        expect(kept(found)).toEqual(kept(expected));
        for (const [token, probability] of expected.entries()) expect(found[token]).toBeCloseTo(probability, 14);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('sampleToken', () => {
  it('inverts the cumulative distribution over token ids', () => {
    const uniform = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(cases, uniform, ({ logits, settings, history }, u) => {
        const seen = within(history, logits);
        const probabilities = filteredProbabilities(logits, settings, seen);
        const token = sampleToken(logits, settings, { uniform: () => u }, new SamplerScratch(logits.length), seen);
        expect(probabilities[token]).toBeGreaterThan(0);
        if (settings.temperature === 0) return;
        const below = probabilities.subarray(0, token).reduce((sum, p) => sum + p, 0);
        expect(u).toBeGreaterThanOrEqual(below - 1e-12);
        expect(u).toBeLessThanOrEqual(below + probabilities[token]! + 1e-12);
      }),
    );
  });

  it('draws each token as often as its probability says', () => {
    const random = stream(7, 'sampler test');
    const logits = Float32Array.from({ length: 60 }, () => 2 * random.normal());
    const settings = { ...unfiltered, temperature: 0.8, topK: 40, topP: 0.9, minP: 0.02 };
    const probabilities = filteredProbabilities(logits, settings);
    const scratch = new SamplerScratch(logits.length);
    const draws = 50_000;
    const counts = new Float64Array(logits.length);
    for (let i = 0; i < draws; i += 1) counts[sampleToken(logits, settings, random, scratch)]! += 1;

    let chiSquare = 0;
    let kept = 0;
    for (const [token, probability] of probabilities.entries()) {
      if (probability === 0) {
        expect(counts[token]).toBe(0);
      } else {
        kept += 1;
        chiSquare += (counts[token]! - draws * probability) ** 2 / (draws * probability);
      }
    }
    expect(kept).toBeGreaterThan(5);
    // χ² has mean n and variance 2n for n = kept − 1 degrees of freedom.
    expect(chiSquare).toBeLessThan(kept - 1 + 4 * Math.sqrt(2 * (kept - 1)));
  });

  it('takes the first of the likeliest tokens at temperature 0, without a random number', () => {
    const random = stream(0);
    const settings = { ...unfiltered, temperature: 0 };
    const scratch = new SamplerScratch(4);
    expect(sampleToken(Float32Array.of(-1, 3, 3, 0), settings, random, scratch)).toBe(1);
    const penalised = { ...settings, repetitionPenalty: 2 };
    expect(sampleToken(Float32Array.of(-1, 3, 3, 0), penalised, random, scratch, [1])).toBe(2);
    expect(random.state().position).toBe(0);
  });

  it('penalises a token of the history once, however often it occurs', () => {
    const settings = { ...unfiltered, repetitionPenalty: 2 };
    const once = filteredProbabilities(Float32Array.of(2, -2, 1), settings, [0, 1]);
    expect(filteredProbabilities(Float32Array.of(2, -2, 1), settings, [0, 1, 0, 1, 1])).toEqual(once);
    expect(once).toEqual(filteredProbabilities(Float32Array.of(1, -4, 1), unfiltered));
  });

  it.each([
    [{ temperature: -1 }, 'temperature is -1'],
    [{ temperature: Number.NaN }, 'temperature is NaN'],
    [{ topK: 1.5 }, 'topK is 1.5'],
    [{ topP: 0 }, 'topP is 0'],
    [{ topP: 1.1 }, 'topP is 1.1'],
    [{ minP: 2 }, 'minP is 2'],
    [{ repetitionPenalty: 0 }, 'repetitionPenalty is 0'],
  ])('refuses %o', (setting, message) => {
    const draw = () =>
      sampleToken(Float32Array.of(0, 1), { ...unfiltered, ...setting }, stream(0), new SamplerScratch(2));
    expect(draw).toThrow(UserError);
    expect(draw).toThrow(message);
  });

  it('refuses logits from which nothing can be drawn, naming the token', () => {
    const draw = (logits: Float32Array) => () =>
      sampleToken(logits, unfiltered, stream(0), new SamplerScratch(logits.length));
    expect(draw(Float32Array.of(0, Number.NaN))).toThrow('token 1 is NaN');
    expect(draw(Float32Array.of(Number.NaN, 0))).toThrow('token 0 is NaN');
    expect(draw(Float32Array.of(0, 1, Infinity))).toThrow('token 2 is Infinity');
    expect(draw(Float32Array.of(-Infinity, -Infinity))).toThrow(UserError);
  });

  it('refuses a row or a history of another vocabulary', () => {
    const settings = { ...unfiltered, repetitionPenalty: 1.1 };
    const scratch = new SamplerScratch(2);
    expect(() => sampleToken(Float32Array.of(0), settings, stream(0), scratch)).toThrow(RangeError);
    expect(() => sampleToken(Float32Array.of(0, 1), settings, stream(0), scratch, [2])).toThrow(RangeError);
  });
});
