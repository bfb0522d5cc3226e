import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { z } from 'zod';
import { learningRate, type Schedule } from '../../src/optim/schedules.js';

const steps = {
  base_lr: z.number(),
  warmup_steps: z.int(),
  total_steps: z.int(),
  lr_used_in_step: z.array(z.number()),
};
const none = z.strictObject({});
const recordedSchedules = z.object({
  schedules: z.array(
    z.discriminatedUnion('name', [
      z.object({ name: z.literal(['constant', 'constant_with_warmup', 'linear', 'cosine']), kwargs: none, ...steps }),
      z.object({
        name: z.literal('cosine_with_restarts'),
        kwargs: z.strictObject({ num_cycles: z.number() }),
        ...steps,
      }),
      z.object({ name: z.literal('cosine_with_min_lr'), kwargs: z.strictObject({ min_lr: z.number() }), ...steps }),
      z.object({
        name: z.literal('polynomial'),
        kwargs: z.strictObject({ power: z.number(), lr_end: z.number() }),
        ...steps,
      }),
    ]),
  ),
});
type Recorded = z.infer<typeof recordedSchedules>['schedules'][number];

const { schedules } = recordedSchedules.parse(
  JSON.parse(readFileSync(new URL('../fixtures/golden/schedules/schedules.json', import.meta.url), 'utf8')),
);

function scheduleOf(recorded: Recorded): Schedule {
  const run = { baseRate: recorded.base_lr, warmupSteps: recorded.warmup_steps, totalSteps: recorded.total_steps };
  switch (recorded.name) {
    case 'cosine_with_restarts':
      return { name: recorded.name, ...run, cycles: recorded.kwargs.num_cycles };
    case 'cosine_with_min_lr':
      return { name: recorded.name, ...run, minRate: recorded.kwargs.min_lr };
    case 'polynomial':
      return { name: recorded.name, ...run, power: recorded.kwargs.power, endRate: recorded.kwargs.lr_end };
    default:
      return { name: recorded.name, ...run };
  }
}

it.each(schedules)('$name, $warmup_steps of $total_steps steps warm-up, as transformers', (recorded) => {
  const schedule = scheduleOf(recorded);
  expect(recorded.lr_used_in_step.length).toBe(recorded.total_steps + 3);
  for (const [step, expected] of recorded.lr_used_in_step.entries()) {
    expect(Math.abs(learningRate(schedule, step) - expected)).toBeLessThanOrEqual(1e-12);
  }
});
