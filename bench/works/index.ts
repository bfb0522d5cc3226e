import type { Setup, Work, WorkName } from '../work.js';
import { ceiling } from './ceiling.js';
import { rm } from './rm.js';
import { rollout } from './rollout.js';
import { sft } from './sft.js';

/** How each work is set up. */
export const works: Readonly<Record<WorkName, (setup: Setup) => Promise<Work>>> = {
  ceiling,
  sft,
  rm,
  'rollout-1': (setup) => rollout(setup, 1),
  'rollout-64': (setup) => rollout(setup, setup.quick ? 2 : 64),
};
