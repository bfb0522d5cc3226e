import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { learningRate, warmupStepsOf, type Schedule } from './schedules.js';

const baseRate = 2e-5;

describe('learningRate', () => {
  it('rises linearly from 0 and reaches the base rate at the end of the warm-up', () => {
    const names = ['constant_with_warmup', 'linear', 'cosine', 'cosine_with_restarts', 'polynomial'] as const;
    for (const name of names) {
      const schedule: Schedule = { name, baseRate, warmupSteps: 4, totalSteps: 20 };
      const rates = [0, 1, 2, 3, 4].map((step) => learningRate(schedule, step) / baseRate);
      expect(rates).toEqual([0, 0.25, 0.5, 0.75, 1]);
    }
  });

  it('ends at 0, and at the lowest rate where there is one', () => {
    const run = { baseRate, warmupSteps: 3, totalSteps: 20 };
    expect(learningRate({ name: 'linear', ...run }, 20)).toBe(0);
    expect(learningRate({ name: 'cosine', ...run }, 20)).toBe(0);
    expect(learningRate({ name: 'cosine_with_restarts', cycles: 3, ...run }, 20)).toBe(0);
    expect(learningRate({ name: 'cosine_with_min_lr', minRate: 1e-6, ...run }, 20)).toBe(1e-6);
    expect(learningRate({ name: 'polynomial', ...run }, 20)).toBe(1e-7);
  });

  it('is a finite rate between 0 and the base rate at every step, for every length', () => {
    const run = fc.record({ warmupSteps: fc.nat(30), totalSteps: fc.integer({ min: 1, max: 30 }) });
    const names = fc.constantFrom('linear' as const, 'cosine' as const, 'cosine_with_restarts' as const);
    fc.assert(
      fc.property(run, names, fc.nat(60), (lengths, name, step) => {
        const rate = learningRate({ name, baseRate, ...lengths }, step);
        expect(rate >= 0 && rate <= baseRate).toBe(true);
      }),
    );
  });

  it('refuses a step that is no step', () => {
    expect(() => learningRate({ name: 'constant', baseRate }, -1)).toThrow(RangeError);
    expect(() => learningRate({ name: 'constant', baseRate }, 0.5)).toThrow(RangeError);
  });
});

describe('warmupStepsOf', () => {
  it('rounds up', () => {
    expect(warmupStepsOf(0.1, 41)).toBe(5);
    expect(warmupStepsOf(0.1, 40)).toBe(4);
    expect(warmupStepsOf(0, 40)).toBe(0);
  });
});
