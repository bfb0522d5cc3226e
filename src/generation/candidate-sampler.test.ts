import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stream } from '../random.js';
import { CandidateSampler, type CandidateRow } from './candidate-sampler.js';
import { sampleToken, SamplerScratch } from './sampler.js';
import { unfiltered, type SamplingSettings } from './sampling-settings.js';

const SIZES = { length: 4, chosen: 5 };
const BLOCKS = 20;
const VOCABULARY = BLOCKS * SIZES.length;

/** What the graph would give, by sorting blocks, and with the rounding of float32. */
function candidatesOf(logits: Float32Array, temperature: number): CandidateRow {
  const block = (id: number): Float32Array => logits.subarray(id * SIZES.length, (id + 1) * SIZES.length);
  const blockIds = Int32Array.from({ length: BLOCKS }, (_, id) => id)
    .sort((a, b) => Math.max(...block(b)) - Math.max(...block(a)))
    .slice(0, SIZES.chosen);
  const blockLogits = Float32Array.from([...blockIds].flatMap((id) => [...block(id)]));
  const highest = Math.max(...logits);
  const total = logits.reduce((sum, x) => Math.fround(sum + Math.fround(Math.exp((x - highest) / temperature))), 0);
  return { blockIds, blockLogits, topProbability: Math.fround(1 / total) };
}

const logit = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true, min: -12, max: 12 }),
  // Ties and masked tokens.
  fc.constantFrom(-3, 0, 0.5, 2, -Infinity),
);
const rows = fc
  .array(logit, { minLength: VOCABULARY, maxLength: VOCABULARY })
  .filter((row) => row.some((value) => value > -Infinity))
  .map((row) => Float32Array.from(row));
const anySettings = fc.record<SamplingSettings>({
  temperature: fc.constantFrom(0, 0.1, 0.7, 0.8, 1, 1.3),
  topK: fc.constantFrom(0, 0, 1, 2, 5, 15, 1000),
  topP: fc.oneof(fc.constantFrom(1, 0.95, 0.5), fc.double({ min: 0.001, max: 0.999, noNaN: true })),
  minP: fc.constantFrom(0, 0, 0.05, 0.5, 1),
  repetitionPenalty: fc.constant(1),
});
const uniforms = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

describe('CandidateSampler', () => {
  const sampler = new CandidateSampler(VOCABULARY, SIZES);
  const scratch = new SamplerScratch(VOCABULARY);
  const fromWholeRow = (logits: Float32Array, settings: SamplingSettings, uniform: number): number =>
    sampleToken(logits, settings, { uniform: () => uniform }, scratch);

  it('draws what the whole row would give, or nothing', () => {
    let decided = 0;
    fc.assert(
      fc.property(rows, anySettings, uniforms, (logits, settings, uniform) => {
        const token = sampler.draw(candidatesOf(logits, settings.temperature || 1), settings, uniform);
        if (token === undefined) return;
        decided++;
        expect(token).toBe(fromWholeRow(logits, settings, uniform));
      }),
      { numRuns: 3000 },
    );
    expect(decided).toBeGreaterThan(1000);
  });

  it('draws nothing where the nucleus reaches beyond the candidates or a rounding could turn the choice', () => {
    const flat = new Float32Array(VOCABULARY).map((_, i) => i / 1e4);
    const settings = { ...unfiltered, topP: 0.95 };
    expect(sampler.draw(candidatesOf(flat, 1), settings, 0.3)).toBeUndefined();
    expect(sampler.draw(candidatesOf(flat, 1), unfiltered, 0.3)).toBeUndefined();

    // Four tokens of 1/4 each but for the rest, and a nucleus of just two or three of them.
    const even = new Float32Array(VOCABULARY).fill(-40);
    even.set([0, 0, 0, 0], 8);
    expect(sampler.draw(candidatesOf(even, 1), { ...unfiltered, topP: 0.5 }, 0.45)).toBeUndefined();
    expect(sampler.draw(candidatesOf(even, 1), { ...unfiltered, topP: 0.6 }, 0.45)).toBe(9);
    expect(sampler.draw(candidatesOf(even, 1), { ...unfiltered, topP: 0.6 }, 0.2)).toBe(8);
  });

  it('decides nearly always for a peaked row, whatever follows the candidates', () => {
    const random = stream(3, 'candidates');
    const settings = { ...unfiltered, temperature: 0.8, topP: 0.95 };
    let undecided = 0;
    for (let i = 0; i < 2000; i++) {
      const logits = Float32Array.from({ length: VOCABULARY }, () => 10 * random.normal());
      const uniform = random.uniform();
      const token = sampler.draw(candidatesOf(logits, 0.8), settings, uniform);
      if (token === undefined) undecided++;
      else expect(token).toBe(fromWholeRow(logits, settings, uniform));
    }
    expect(undecided).toBeLessThan(400);
  });

  it('leaves a row that is no distribution to the sampler that says what is wrong', () => {
    const settings = { ...unfiltered, topP: 0.9 };
    for (const wrong of [Number.NaN, Infinity]) {
      const logits = new Float32Array(VOCABULARY).map((_, i) => i);
      logits[3] = wrong;
      const candidates = { ...candidatesOf(logits, 1), topProbability: Number.NaN };
      expect(sampler.draw(candidates, settings, 0.5)).toBeUndefined();
    }
    expect(() => sampler.draw(candidatesOf(new Float32Array(VOCABULARY), 1), { ...settings, topP: 2 }, 0.5)).toThrow(
      'topP is 2',
    );
  });

  it('knows the log-probability of a token in the whole row', () => {
    fc.assert(
      fc.property(rows, fc.constantFrom(0.5, 1, 1.3), uniforms, (logits, temperature, uniform) => {
        const token = fromWholeRow(logits, { ...unfiltered, temperature, topP: 0.9 }, uniform);
        const candidates = candidatesOf(logits, temperature);
        if (!candidates.blockIds.includes(Math.floor(token / SIZES.length))) return;
        const logit = sampler.logitOf(candidates, token);
        expect(logit).toBe(logits[token]);
        const exact = logit / temperature - Math.log(logits.reduce((sum, x) => sum + Math.exp(x / temperature), 0));
        expect(sampler.logProbability(candidates, temperature, logit)).toBeCloseTo(exact, 5);
      }),
    );
  });
});
