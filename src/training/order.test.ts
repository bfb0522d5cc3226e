import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EpochOrder } from './order.js';

const epochOf = (order: EpochOrder, epoch: number): number[][] =>
  Array.from({ length: order.stepsPerEpoch }, (_, i) => order.at(epoch * order.stepsPerEpoch + i));

describe('EpochOrder', () => {
  it('visits every sample once an epoch, whatever the lengths', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(300), { minLength: 1, maxLength: 400 }),
        fc.integer({ min: 1, max: 9 }),
        fc.nat(),
        fc.boolean(),
        (lengths, perStep, seed, byLength) => {
          const order = new EpochOrder(lengths.length, perStep, seed, byLength ? { lengths } : {});
          for (const epoch of [0, 3]) {
            expect(
              epochOf(order, epoch)
                .flat()
                .sort((a, b) => a - b),
            ).toEqual([...lengths.keys()]);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it('is a function of the step alone, in another order each epoch and for each seed', () => {
    const lengths = Array.from({ length: 100 }, (_, i) => (i * 37) % 61);
    const make = (seed: number): EpochOrder => new EpochOrder(100, 8, seed, { lengths });
    const forwards = make(1);
    const expected = Array.from({ length: 30 }, (_, step) => forwards.at(step));
    const backwards = make(1);
    for (let step = 29; step >= 0; step--) expect(backwards.at(step)).toEqual(expected[step]);
    expect(epochOf(make(1), 0)).not.toEqual(epochOf(make(1), 1));
    expect(epochOf(make(1), 0)).not.toEqual(epochOf(make(2), 0));
  });

  it('puts samples of similar length together', () => {
    const lengths = Array.from({ length: 800 }, (_, i) => (i * 7919) % 797);
    const spread = (order: EpochOrder): number =>
      epochOf(order, 0).reduce((total, batch) => {
        const own = batch.map((i) => lengths[i]!);
        return total + Math.max(...own) * own.length - own.reduce((a, b) => a + b, 0);
      }, 0);
    const padded = spread(new EpochOrder(800, 16, 1));
    expect(spread(new EpochOrder(800, 16, 1, { lengths }))).toBeLessThan(padded / 10);
  });

  it('leaves out a short batch only when whole ones are asked for', () => {
    expect(new EpochOrder(10, 4, 1).stepsPerEpoch).toBe(3);
    expect(new EpochOrder(10, 4, 1, { whole: true }).stepsPerEpoch).toBe(2);
    expect(() => new EpochOrder(3, 4, 1, { whole: true })).toThrow(RangeError);
    expect(new EpochOrder(10, 4, 1).totalSteps(1.5)).toBe(5);
    expect(new EpochOrder(10, 4, 1).totalSteps(1.5, 2)).toBe(2);
  });
});
