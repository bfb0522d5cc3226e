import { expect, it } from 'vitest';
import { Notes } from './notes.js';

const codes = (notes: Notes, step: number, metrics: Record<string, number>): string[] =>
  notes.step(step, metrics).map(({ code }) => code.slice('grpo.'.length));

it('explains a loss of 0 at the first step, and there alone', () => {
  expect(codes(new Notes(), 1, { loss: 4e-9 })).toEqual(['loss-zero']);
  expect(codes(new Notes(), 1, { loss: 0.1 })).toEqual([]);
  expect(codes(new Notes(), 2, { loss: 4e-9 })).toEqual([]);
});

it('explains a negative loss and a KL that rises, each once', () => {
  const notes = new Notes();
  expect(codes(notes, 1, { loss: -0.1, kl: 0 })).toEqual(['loss-negative']);
  expect(codes(notes, 2, { loss: -0.1, kl: 0.03 })).toEqual(['kl-rising']);
  expect(codes(notes, 3, { loss: -0.1, kl: 0.05 })).toEqual([]);
});

it('explains a reward that is flat by what it sees, and leaves one that rises alone', () => {
  const run = (reward: (i: number) => number, more: Record<string, number>): string => {
    const notes = new Notes();
    return Array.from({ length: 20 }, (_, i) => notes.step(4 * i + 1, { reward: reward(i), ...more }))
      .flat()
      .map(({ message }) => message)
      .join('\n');
  };
  const noise = (i: number): number => Math.sin(i * 7.3) / 5;
  expect(run((i) => noise(i) + i / 10, {})).toBe('');
  expect(run(noise, { kl: 1e-5 })).toMatch(/^The reward is flat: .*hardly moved \(KL 0\.00001\)/);
  expect(run(noise, { frac_reward_zero_std: 0.8, kl: 0.01 })).toMatch(/one reward alone/);
  expect(run(noise, { kl: 0.01 })).toMatch(/does not follow/);
  expect(run(() => 1, {}).match(/flat/g)).toHaveLength(1);
});
