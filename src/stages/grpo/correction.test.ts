import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { correctionMetrics, correctionWeights } from './correction.js';

const log = (values: readonly number[]): number[] => values.map(Math.log);
/** Ratios policy / sampler of 2, 0.25 and 1; of the completion 0.5. */
const drawn = { oldLogProbs: log([0.5, 0.1, 0.3]), samplerLogProbs: log([0.25, 0.4, 0.3]) };

const rounded = (values: readonly number[]): number[] => values.map((value) => Number(value.toFixed(12)));

describe('the weight of a token that a sampler drew', () => {
  it.each([
    ['token_truncate', 1.5, undefined, [1.5, 0.25, 1]],
    ['token_truncate', 1.5, 0.5, [1.5, 0.5, 1]],
    ['token_mask', 1.5, undefined, [0, 0.25, 1]],
    ['token_mask', 3, 0.5, [2, 0, 1]],
    ['sequence_truncate', 0.4, undefined, [0.4, 0.4, 0.4]],
    ['sequence_mask', 0.4, undefined, [0, 0, 0]],
    ['sequence_mask', 3, undefined, [0.5, 0.5, 0.5]],
  ] as const)('%s up to %s, from %s', (mode, max, min, expected) => {
    expect(rounded(correctionWeights(drawn, { mode, max, min }))).toEqual(expected);
  });

  it('is 1 where nothing is corrected and where nothing is known of the sampler', () => {
    expect(correctionWeights(drawn, undefined)).toEqual([1, 1, 1]);
    const settings = { mode: 'sequence_mask', max: 3, min: undefined } as const;
    expect(correctionWeights({ oldLogProbs: [-1, -2] }, settings)).toEqual([1, 1]);
  });

  it('is 1 for a sampler that computes as the policy does, and never beyond its bounds', () => {
    const logProbs = fc.array(fc.double({ min: -9, max: 0, noNaN: true }), { minLength: 1, maxLength: 8 });
    const modes = fc.constantFrom('token_truncate', 'token_mask', 'sequence_truncate', 'sequence_mask');
    fc.assert(
      fc.property(logProbs, logProbs, modes, (oldLogProbs, other, mode) => {
        const settings = { mode, max: 3, min: 0.1 } as const;
        const same = correctionWeights({ oldLogProbs, samplerLogProbs: oldLogProbs }, settings);
        expect(same).toEqual(oldLogProbs.map(() => 1));
        const samplerLogProbs = oldLogProbs.map((_, t) => other[t % other.length]!);
        for (const weight of correctionWeights({ oldLogProbs, samplerLogProbs }, settings))
          expect(weight === 0 ? mode.endsWith('mask') : weight >= 0.1 && weight <= 3).toBe(true);
      }),
    );
  });
});

it('tells how far sampler and policy are apart, by completion where that is what is weighed', () => {
  const unknown = { oldLogProbs: [-1] };
  const metrics = correctionMetrics([drawn, unknown], { mode: 'sequence_truncate', max: 3, min: undefined });
  expect(metrics['sampling/sampling_logp_difference/mean']).toBeCloseTo((Math.log(2) + Math.log(4)) / 3, 12);
  expect(metrics['sampling/sampling_logp_difference/max']).toBeCloseTo(Math.log(4), 12);
  for (const part of ['min', 'mean', 'max'])
    expect(metrics[`sampling/importance_sampling_ratio/${part}`]).toBeCloseTo(0.5, 12);
  const perToken = correctionMetrics([drawn], { mode: 'token_truncate', max: 3, min: undefined });
  expect(perToken['sampling/importance_sampling_ratio/min']).toBeCloseTo(0.25, 12);
  expect(perToken['sampling/importance_sampling_ratio/mean']).toBeCloseTo(3.25 / 3, 12);
  expect(Object.keys(correctionMetrics([drawn], undefined))).toHaveLength(2);
  expect(correctionMetrics([unknown], undefined)).toEqual({});
});
