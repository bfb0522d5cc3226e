import { describe, expect, it } from 'vitest';
import { LOSS_TYPES, lossWarnings } from './grpo-loss.js';
import { loadConfig } from './load.js';

const load = (flags: Record<string, unknown>) =>
  loadConfig({
    stage: 'grpo',
    flags: {
      model: 'm',
      rm: 'r',
      'data.dir': 'd',
      ...Object.fromEntries(Object.entries(flags).map(([key, value]) => [`grpo.${key}`, value])),
    },
  });

describe('settings of the loss that cannot be meant', () => {
  it.each([
    [{ lossType: 'sapo', delta: 2 }, /delta is 2, but sapo has no two-sided clipping/],
    [{ klEstimator: 'k1', useBiasCorrectionKl: false }, /klEstimator is k1 without useBiasCorrectionKl/],
    [{ lossType: 'vespo', rolloutCorrection: 'sequence_mask' }, /rolloutCorrection is sequence_mask, but vespo/],
    [{ rolloutCorrectionMin: 3 }, /rolloutCorrectionMin is 3, not below rolloutCorrectionMax \(3\)/],
    [{ entropyCoefMin: 2 }, /entropyCoefMin is 2, above entropyCoefMax \(1\)/],
    [{ gradientAccumulationSteps: 3 }, /completionsPerRollout is 64, no multiple of batchSize × grad.* \(16 × 3\)/],
    [{ microBatchSize: 5 }, /microBatchSize is 5, which does not divide batchSize \(16\)/],
    [{ microBatchSize: 8, topEntropyQuantile: 0.2 }, /microBatchSize is 8, but topEntropyQuantile ranks/],
  ])('are refused: %o', async (flags, message) => {
    await expect(load(flags)).rejects.toMatchObject({
      code: 'config.combination',
      exitCode: 2,
      message: expect.stringMatching(message) as unknown,
      fix: expect.stringMatching(/\w/) as unknown,
    });
  });

  it.each<Record<string, unknown>>([
    { klEstimator: 'k1' },
    { lossType: 'vespo', rolloutCorrection: 'token_mask' },
    { gradientAccumulationSteps: 2, microBatchSize: 4 },
    ...LOSS_TYPES.map((lossType) => ({ lossType })),
  ])('and others taken: %o', async (flags) => {
    expect((await load(flags)).grpo).toMatchObject(flags);
  });
});

it.each([
  [{ lossType: 'luspo' }, ['grpo.luspo-level']],
  [{ lossType: 'luspo', importanceSamplingLevel: 'sequence' }, []],
  [{ lossType: 'vespo', importanceSamplingLevel: 'sequence' }, ['grpo.vespo-level']],
  [{ lossType: 'dapo', importanceSamplingLevel: 'sequence' }, ['grpo.sequence-level']],
  [{ lossType: 'cispo' }, ['grpo.cispo-bound']],
  [{ lossType: 'cispo', epsilonHigh: 5 }, []],
  [{}, []],
])('warns of what papers have otherwise: %o', async (flags, codes) => {
  expect(lossWarnings((await load(flags)).grpo).map(({ code }) => code)).toEqual(codes);
});
