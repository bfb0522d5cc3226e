import { describe, expect, it } from 'vitest';
import { oldLogProbs } from './old-log-probs.js';

const COMPLETIONS = 20;
const sampler = Array.from({ length: COMPLETIONS }, (_, i) =>
  Array.from({ length: 1 + (i % 3) }, (_, t) => -0.1 - 0.1 * i - t),
);

/** The policy, `shift` away from the sampler, and what it was asked for. */
function policyAt(shift: number) {
  const asked: number[][] = [];
  const measure = async (completions: readonly number[]): Promise<Float32Array[]> => {
    asked.push([...completions]);
    return Promise.resolve(completions.map((i) => Float32Array.from(sampler[i]!, (value) => value + shift)));
  };
  return { measure, asked };
}

describe('oldLogProbs', () => {
  it('takes the numbers of a sampler that is the policy, after measuring some of them', async () => {
    const { measure, asked } = policyAt(1e-4);
    const { policy, sampler: other, metrics } = await oldLogProbs(sampler, measure, 0.01);
    expect(policy).toBe(sampler);
    expect(other).toBeUndefined();
    expect(asked).toEqual([[0, 8, 16]]);
    expect(metrics['sampling/sampling_logp_difference/mean']).toBeCloseTo(1e-4, 6);
    expect(metrics['sampling/sampling_logp_difference/max']).toBeCloseTo(1e-4, 6);
  });

  it.each([
    ['a sampler that is another policy', 0.02],
    ['what is no number', Number.NaN],
  ])('computes all anew for %s, each once', async (_, shift) => {
    const { measure, asked } = policyAt(shift);
    const { policy, sampler: other } = await oldLogProbs(sampler, measure, 0.01);
    expect(other).toBe(sampler);
    expect(asked.flat().sort((a, b) => a - b)).toEqual([...sampler.keys()]);
    expect(policy).toEqual(sampler.map((row) => row.map((value) => Math.fround(value + shift))));
  });

  it('computes all anew where nothing is tolerated', async () => {
    const { measure, asked } = policyAt(0);
    const { policy, sampler: other } = await oldLogProbs(sampler, measure, 0);
    expect(asked).toEqual([[...sampler.keys()]]);
    expect(other).toBe(sampler);
    expect(policy.flat()).toEqual(sampler.flat().map(Math.fround));
  });
});
