import type { Setup, Work, WorkName } from '../work.js';
import { ceiling } from './ceiling.js';
import { generate } from './generate.js';
import { grpo } from './grpo.js';
import { rm } from './rm.js';
import { sft } from './sft.js';

/** How each work is set up. */
export const works: Readonly<Record<WorkName, (setup: Setup) => Promise<Work>>> = {
  ceiling,
  sft,
  rm,
  grpo,
  'generate-1': (setup) => generate(setup, 1),
  'generate-64': (setup) => generate(setup, setup.quick ? 2 : 64),
};
