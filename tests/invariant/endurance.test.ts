import { afterAll, expect, it } from 'vitest';
import { residentBytes } from '../../bench/growth/resident-bytes.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { causalLossFeeds } from '../../src/training/language.js';
import { goldenLearner } from '../support/golden-learner.js';
import { whole } from '../support/packed.js';

/** 6,000 with `npm run test:endurance`; fewer where all tests run. */
const STEPS = Number(process.env['DUANZI_ENDURANCE_STEPS'] ?? 2000);
/** Steps until arenas, just-in-time code and the heaps of both threads have their size. */
const SETTLED = STEPS / 4;

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

it(
  `${STEPS} steps of batches of many lengths need no more memory than the first quarter of them`,
  { timeout: 300_000 },
  async () => {
    const learner = await goldenLearner(runtime, 'lora/adapter', { weightDecay: 0.01, maxGradNorm: 1 });
    const looks: number[] = [];
    for (let step = 1; step <= STEPS; step++) {
      const length = 3 + (step % 11);
      const ids = Array.from({ length }, (_, i) => 3 + ((7 * step + 13 * i) % 300));
      // Every fifth step has a second micro-batch, every hundredth is skipped.
      const feeds = causalLossFeeds([whole(ids)], step % 100 === 0 ? 0 : length - 1);
      await learner.step(step % 5 === 0 ? [feeds, feeds] : [feeds], 1e-4);
      if (step >= SETTLED && step % (STEPS / 20) === 0) looks.push(residentBytes());
    }
    const [early, late] = [looks.slice(0, 4), looks.slice(-4)].map((some) => Math.min(...some));
    expect(late! / early!, looks.join(' ')).toBeLessThan(1.05);
    await learner.dispose();
  },
);
