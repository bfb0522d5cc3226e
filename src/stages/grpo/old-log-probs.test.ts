import { describe, expect, it } from 'vitest';
import { oldLogProbs } from './old-log-probs.js';

const COMPLETIONS = 20;
const sampler = Array.from({ length: COMPLETIONS }, (_, i) =>
  Array.from({ length: 1 + (i % 3) }, (_, t) => -0.1 - 0.1 * i - t),
);

/** The policy, so far away from the sampler in a completion, and what it was asked for. */
function policyAt(shiftOf: (completion: number) => number) {
  const asked: number[][] = [];
  const measure = async (completions: readonly number[]): Promise<Float32Array[]> => {
    asked.push([...completions]);
    return Promise.resolve(completions.map((i) => Float32Array.from(sampler[i]!, (value) => value + shiftOf(i))));
  };
  return { measure, asked };
}

describe('oldLogProbs', () => {
  it('takes the numbers of a sampler that is the policy, after measuring some of them', async () => {
    const { measure, asked } = policyAt(() => 1e-4);
    const { policy, sampler: other, metrics } = await oldLogProbs(sampler, measure, 0.01);
    expect(policy).toBe(sampler);
    expect(other).toBeUndefined();
    expect(asked).toEqual([[0, 8, 16]]);
    expect(metrics['sampling/sampling_logp_difference/mean']).toBeCloseTo(1e-4, 6);
    expect(metrics['sampling/sampling_logp_difference/max']).toBeCloseTo(1e-4, 6);
  });

  it('takes them where rounding in 8 bits has moved some tokens further than the rest', async () => {
    const { measure } = policyAt((i) => (i === 8 ? 0.013 : 1e-3));
    const { policy, metrics } = await oldLogProbs(sampler, measure, 0.01);
    expect(policy).toBe(sampler);
    expect(metrics['sampling/sampling_logp_difference/max']).toBeCloseTo(0.013, 6);
  });

  it.each([
    ['a sampler that is another policy', () => 0.02],
    ['a completion that is far off', (i: number) => (i === 8 ? 0.1 : 0)],
    ['what is no number', () => Number.NaN],
  ])('computes all anew for %s, each once', async (_, shiftOf) => {
    const { measure, asked } = policyAt(shiftOf);
    const { policy, sampler: other } = await oldLogProbs(sampler, measure, 0.01);
    expect(other).toBe(sampler);
    expect(asked.flat().sort((a, b) => a - b)).toEqual([...sampler.keys()]);
    expect(policy).toEqual(sampler.map((row, i) => row.map((value) => Math.fround(value + shiftOf(i)))));
  });

  it('computes all anew where nothing is tolerated', async () => {
    const { measure, asked } = policyAt(() => 0);
    const { policy, sampler: other } = await oldLogProbs(sampler, measure, 0);
    expect(asked).toEqual([[...sampler.keys()]]);
    expect(other).toBe(sampler);
    expect(policy.flat()).toEqual(sampler.flat().map(Math.fround));
  });
});
