import { availableParallelism } from 'node:os';
import { z } from 'zod';
import { key } from './key.js';
import { count } from './training.js';

/** What can compute: execution providers of ONNX Runtime. */
export const DEVICES = ['cpu', 'webgpu', 'cuda', 'coreml', 'dml'] as const;

export type Device = (typeof DEVICES)[number];

/** Keys that every command understands. */
export const commonKeys = {
  seed: key(count(0).max(0xffffffff).default(1), 'Seed of every random choice but the split.', { flag: '--seed <n>' }),
  device: key(z.enum([...DEVICES, 'auto']).default('cpu'), 'Device that computes; auto: a GPU where there is one.', {
    flag: '--device <name>',
  }),
  threads: key(
    count().default(availableParallelism),
    'Threads that compute; fixed for a run, as results depend on it.',
    {
      flag: '--threads <n>',
      defaultText: 'the cores available',
    },
  ),
};

/** Keys of whatever leaves a run folder. */
export function runKeys(name: string) {
  return {
    ...commonKeys,
    out: key(z.string().min(1).default(`runs/${name}`), 'Run folder to write; must be new, empty or resumed.', {
      path: true,
      flag: '--out <dir>',
    }),
    resume: key(z.boolean().default(false), 'Go on from the newest whole checkpoint in the run folder.', {
      flag: '--resume',
    }),
    memory: key(
      z
        .strictObject({
          limit: key(
            z.number().min(0).optional(),
            'GiB that a stage may take by its plan: what the machine has free if not given, 0 for whatever it needs.',
            { flag: '--memory-limit <gib>' },
          ),
        })
        .prefault({}),
      'Whether a stage begins for which memory does not suffice.',
    ),
    force: key(z.boolean().default(false), 'Resume also with settings other than those of the run so far.', {
      flag: '--force',
    }),
  };
}
