import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../errors.js';
import { groupAdvantages, type AdvantageSettings } from './advantages.js';

const groups: AdvantageSettings = { groupSize: 4, scaleRewards: 'group', aggregation: 'sum_then_normalize' };
const one = (scores: readonly (number | null)[], settings = groups) =>
  groupAdvantages([{ name: 'rm', weight: 1, scores }], settings);

describe('groupAdvantages', () => {
  it('gives equal rewards exactly no advantage, whatever their binary fractions', () => {
    fc.assert(
      fc.property(
        fc.double({ noNaN: true, min: -1e6, max: 1e6 }),
        fc.integer({ min: 2, max: 9 }),
        (reward, groupSize) => {
          const { advantages, metrics } = one(new Array<number>(groupSize).fill(reward), { ...groups, groupSize });
          expect(advantages.every((advantage) => advantage === 0)).toBe(true);
          expect(metrics['frac_reward_zero_std']).toBe(1);
        },
      ),
    );
  });

  it('is centred in every group and does not change when a group gains a constant', () => {
    const reward = fc.double({ noNaN: true, min: -10, max: 10 });
    const scale = fc.constantFrom('group' as const, 'none' as const);
    fc.assert(
      fc.property(fc.array(reward, { minLength: 8, maxLength: 8 }), reward, scale, (rewards, shift, scaleRewards) => {
        const settings = { ...groups, scaleRewards };
        const { advantages } = one(rewards, settings);
        const shifted = one(
          rewards.map((value, index) => (index < 4 ? value + shift : value)),
          settings,
        );
        for (const start of [0, 4]) {
          expect(advantages.subarray(start, start + 4).reduce((sum, x) => sum + x, 0)).toBeCloseTo(0, 9);
        }
        for (const [index, advantage] of advantages.entries()) {
          expect(shifted.advantages[index]).toBeCloseTo(advantage, 6);
        }
      }),
    );
  });

  it('treats a missing score and NaN alike, and a completion without a score gets none', () => {
    const rewards = [1, 2, null, 4, 0, 1, 0, 1];
    const missing = one(rewards);
    expect(one(rewards.map((reward) => reward ?? Number.NaN))).toEqual(missing);
    expect(missing.advantages[2]).toBe(0);
    expect(missing.rewards[2]).toBeNaN();
    expect(missing.metrics['reward']).toBeCloseTo(9 / 7, 12);
  });

  it('has no advantages but NaN metrics when nothing was scored', () => {
    const { advantages, metrics } = one([null, null, null, null]);
    expect([...advantages]).toEqual([0, 0, 0, 0]);
    expect(metrics['reward']).toBeNaN();
    expect(metrics['reward_std']).toBeNaN();
    expect(metrics['frac_reward_zero_std']).toBe(0);
  });

  it('gives a completion that is alone in its group no advantage', () => {
    for (const scaleRewards of ['group', 'batch', 'none'] as const) {
      const settings = { ...groups, groupSize: 1, scaleRewards };
      expect([...one([3, 5], settings).advantages]).toEqual([0, 0]);
    }
    const settings = { ...groups, groupSize: 1, aggregation: 'normalize_then_sum' } as const;
    expect([...one([3, 5], settings).advantages]).toEqual([0, 0]);
  });

  it('refuses an infinite score, naming the function and the completion', () => {
    const scored = () => one([1, Number.NEGATIVE_INFINITY, 2, 3]);
    expect(scored).toThrow(UserError);
    expect(scored).toThrow('`rm` gave -Infinity for completion 1');
  });

  it('refuses scores that do not fill whole groups', () => {
    expect(() => one([1, 2, 3])).toThrow(RangeError);
    expect(() => one([])).toThrow(RangeError);
    const columns = [
      { name: 'a', weight: 1, scores: [1, 2, 3, 4] },
      { name: 'b', weight: 1, scores: [1, 2, 3] },
    ];
    expect(() => groupAdvantages(columns, groups)).toThrow(RangeError);
  });
});
