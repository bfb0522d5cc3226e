import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { z } from 'zod';
import { groupAdvantages } from '../../src/stages/grpo/advantages.js';

const number = z.union([z.number(), z.literal('NaN').transform(() => Number.NaN)]);
const recorded = z
  .object({
    num_generations: z.int(),
    cases: z.array(
      z.object({
        case: z.string(),
        scale_rewards: z.enum(['group', 'batch', 'none']),
        multi_objective_aggregation: z.enum(['sum_then_normalize', 'normalize_then_sum']),
        reward_weights: z.array(z.number()),
        rewards: z.array(z.array(number.nullable())),
        advantages: z.array(number),
        metrics: z.record(z.string(), number),
      }),
    ),
  })
  .parse(
    JSON.parse(readFileSync(new URL('../fixtures/golden/grpo_advantages/advantages.json', import.meta.url), 'utf8')),
  );

it.each(recorded.cases)('$case, scale $scale_rewards, $multi_objective_aggregation, as TRL', (run) => {
  const functions = run.rewards.map((scores, index) => ({
    name: `f${index}`,
    weight: run.reward_weights[index]!,
    scores,
  }));
  const { advantages, metrics } = groupAdvantages(functions, {
    groupSize: recorded.num_generations,
    scaleRewards: run.scale_rewards,
    aggregation: run.multi_objective_aggregation,
  });

  // TRL's float32 loses the differences between rewards of 0.7 and 0.700001.
  const tolerance = run.case === 'tiny_variance_group' ? 1e-3 : 1e-5;
  expect(advantages.length).toBe(run.advantages.length);
  for (const [index, expected] of run.advantages.entries()) {
    expect(Math.abs(advantages[index]! - expected)).toBeLessThanOrEqual(tolerance);
  }
  expect(Object.keys(metrics)).toEqual(Object.keys(run.metrics));
  for (const [name, expected] of Object.entries(run.metrics)) {
    expect(Math.abs(metrics[name]! - expected), name).toBeLessThanOrEqual(1e-5);
  }
});
