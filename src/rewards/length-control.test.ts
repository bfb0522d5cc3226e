import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LengthControl } from './length-control.js';

const residual = { lengthControl: 'residual', lengthPrice: 0, lengthWindow: 4 } as const;
const training = { groupSize: 4, learn: true };

/** A seeded rollout: 4 prompts of different lengths and levels, a character worth 0.08. */
const rollout = (worth: number, start = 20): { lengths: number[]; content: number[]; scores: number[] } => {
  const lengths = Array.from({ length: 16 }, (_, i) => start + 12 * Math.floor(i / 4) + ((i * 7) % 11));
  // The same for like lengths, so that it does not lean on length within a group.
  const content = Array.from({ length: 16 }, (_, i) => Math.sin(i * i) / 10);
  return { lengths, content, scores: content.map((each, i) => each + worth * lengths[i]! - Math.floor(i / 4)) };
};

const correlationWithin = (x: readonly number[], y: readonly number[]): number => {
  let [xx, xy, yy] = [0, 0, 0];
  for (let start = 0; start < x.length; start += 4) {
    const [mx, my] = [x, y].map((v) => v.slice(start, start + 4).reduce((a, b) => a + b, 0) / 4);
    for (let i = start; i < start + 4; i++) {
      xx += (x[i]! - mx!) ** 2;
      xy += (x[i]! - mx!) * (y[i]! - my!);
      yy += (y[i]! - my!) ** 2;
    }
  }
  return xy / Math.sqrt(xx * yy);
};

describe('residual', () => {
  it('leaves no correlation with length within the prompts of a rollout', () => {
    const { lengths, scores } = rollout(0.08);
    expect(correlationWithin(lengths, scores)).toBeGreaterThan(0.9);
    const controlled = new LengthControl(residual).apply(lengths, scores, training);
    expect(controlled.slope).toBeCloseTo(0.08, 1);
    expect(correlationWithin(lengths, controlled.scores)).toBeCloseTo(0, 10);
  });

  it('is blind to what prompts earn and how long their answers are', () => {
    const { lengths, scores } = rollout(0.08);
    const moved = (values: number[], by: number): number[] => values.map((v, i) => v + by * Math.floor(i / 4) ** 2);
    const plain = new LengthControl(residual).apply(lengths, scores, training);
    const shifted = new LengthControl(residual).apply(moved(lengths, 9), moved(scores, -5), training);
    expect(shifted.slope).toBeCloseTo(plain.slope, 10);
  });

  it('reads on as if texts were as long as at the start', () => {
    const control = new LengthControl(residual);
    const before = control.apply(rollout(0.08).lengths, rollout(0.08).scores, training);
    const after = control.apply(rollout(0.08, 60).lengths, rollout(0.08, 60).scores, training);
    const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean(rollout(0.08, 60).scores) - mean(rollout(0.08).scores)).toBeCloseTo(3.2);
    expect(mean(after.scores) - mean(before.scores)).toBeCloseTo(0, 1);
  });

  it('follows a reward that no longer pays for length, and forgets after the window', () => {
    const control = new LengthControl(residual);
    for (let i = 0; i < 4; i++) control.apply(rollout(0.08).lengths, rollout(0.08).scores, training);
    let slope = 1;
    for (let i = 0; i < 4; i++) ({ slope } = control.apply(rollout(0).lengths, rollout(0).scores, training));
    expect(slope).toBeCloseTo(new LengthControl(residual).apply(rollout(0).lengths, rollout(0).scores, training).slope);
  });

  it('keeps held-out texts out of the window', () => {
    const control = new LengthControl(residual);
    control.apply(rollout(0.08).lengths, rollout(0.08).scores, training);
    const { state } = control;
    const { slope } = control.apply(rollout(5).lengths, rollout(5).scores, { groupSize: 4, learn: false });
    expect(slope).toBeCloseTo(0.08, 1);
    expect(control.state).toEqual(state);
  });

  it('goes on from its state as if nothing had happened', () => {
    const whole = new LengthControl(residual);
    const broken = new LengthControl(residual);
    for (const control of [whole, broken]) control.apply(rollout(0.1).lengths, rollout(0.1).scores, training);
    const resumed = new LengthControl(residual);
    resumed.state = JSON.parse(JSON.stringify(broken.state)) as typeof broken.state;
    const next = rollout(0.02, 33);
    expect(resumed.apply(next.lengths, next.scores, training)).toEqual(
      whole.apply(next.lengths, next.scores, training),
    );
  });

  it('stays a number whatever it is given', () => {
    const value = fc.double({ noNaN: true, min: -1e3, max: 1e3 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(200), value), { minLength: 4, maxLength: 16 }).filter((all) => all.length % 4 === 0),
        (pairs) => {
          const [lengths, scores] = [pairs.map(([length]) => length), pairs.map(([, score]) => score)];
          const controlled = new LengthControl(residual).apply(lengths, scores, training);
          expect(controlled.scores.every(Number.isFinite)).toBe(true);
        },
      ),
    );
  });
});

it('price takes the price of every character', () => {
  const control = new LengthControl({ ...residual, lengthControl: 'price', lengthPrice: 0.05 });
  expect(control.apply([10, 20], [1, 2], { groupSize: 2, learn: true })).toEqual({ scores: [0.5, 1], slope: 0.05 });
});
