import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isSpike, median, stabilityMetrics, stabilityState } from './stability.js';

const settings = { spikeThreshold: 10, spikeWindow: 20 };
const noise = Array.from({ length: 20 }, (_, i) => 2 + 0.1 * Math.sin(12.9898 * i));

describe('a spike', () => {
  it('is a loss far above the newest ones, not one far below', () => {
    expect(isSpike(2.2, noise, settings)).toBe(false);
    expect(isSpike(4, noise, settings)).toBe(true);
    expect(isSpike(0, noise, settings)).toBe(false);
  });

  it('is not told before half a window of losses is known', () => {
    expect(isSpike(100, noise.slice(0, 9), settings)).toBe(false);
    expect(isSpike(100, noise.slice(0, 10), settings)).toBe(true);
  });

  it('is told although there were some before: a median does not follow them', () => {
    const recent = noise.map((loss, i) => (i % 3 === 0 ? 50 : loss));
    expect(isSpike(50, recent, { ...settings, spikeThreshold: 5 })).toBe(true);
  });

  it('is none where losses hardly vary and one varies a little more', () => {
    expect(isSpike(2.1, Array<number>(20).fill(2), settings)).toBe(false);
    expect(isSpike(0.1, Array<number>(20).fill(0), settings)).toBe(false);
  });

  it('is none whatever the order of the losses, when it is one of them and the threshold is past their range', () => {
    const losses = fc.array(fc.double({ min: -5, max: 20, noNaN: true }), { minLength: 10, maxLength: 40 });
    fc.assert(
      fc.property(losses, fc.nat(), (recent, pick) => {
        const loss = recent[pick % recent.length]!;
        expect(isSpike(loss, recent, { spikeWindow: 20, spikeThreshold: 2000 })).toBe(false);
        expect(isSpike(loss, [...recent].reverse(), settings)).toBe(isSpike(loss, recent, settings));
      }),
    );
  });
});

it('takes the middle, or the mean of the two in the middle', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
});

it('logs no counts while nothing went wrong', () => {
  expect(stabilityMetrics(stabilityState.parse({}))).toEqual({});
  expect(stabilityMetrics(stabilityState.parse({ skipped: 2, spikes: 1 }))).toEqual({
    skipped_steps: 2,
    loss_spikes: 1,
  });
});
