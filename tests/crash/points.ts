import { stream } from '../../src/random.js';
import type { FaultKind, Write } from './faults.js';
import type { Point } from './harness.js';
import type { Scenario } from './scenarios.js';

/** `count` of the items, evenly spread; all of them if there are no more. */
const spread = <T>(items: readonly T[], count: number): T[] => {
  const number = Math.min(count, items.length);
  return Array.from({ length: number }, (_, i) => items[Math.floor(((i + 0.5) * items.length) / number)]!);
};

/**
 * Kills before `count` writes of the last two checkpoints, from the first file beside their places to the last that is
 * tidied; before every one if there are no more.
 */
export function checkpointPoints(scenario: Scenario, writes: readonly Write[], count: number): Point[] {
  const steps = writes.flatMap(({ path }) => /checkpoints\/\.?step-(\d+)/.exec(path)?.[1] ?? []);
  const last = [...new Set(steps)].slice(-2);
  const own = new RegExp(`checkpoints/\\.?step-(${last.join('|')})\\b`);
  const places = [...writes.keys()].filter((at) => own.test(writes[at]!.path));
  return spread(places, count).map((at) => ({ scenario, faults: [{ kind: 'kill', at }] }));
}

/** Kills at random writes, before them or in their midst; every fourth run is killed again while it goes on. */
export function randomPoints(scenario: Scenario, writes: readonly Write[], count: number, seed: number): Point[] {
  const random = stream(seed, 'crash', scenario);
  return Array.from({ length: count }, (_, i) => {
    const draw = (): FaultKind => (random.uniform() < 0.6 ? 'kill' : 'torn');
    const faults = [{ kind: draw(), at: random.integer(writes.length) }];
    if (i % 4 === 3) faults.push({ kind: draw(), at: random.integer(Math.ceil(writes.length / 2)) });
    return { scenario, faults };
  });
}

/** A full disk and a failing one at `count` writes, evenly spread; at every one where there are no more. */
export function diskPoints(scenario: Scenario, writes: readonly Write[], count: number): Point[] {
  return spread([...writes.keys()], count).flatMap((at) =>
    (['ENOSPC', 'EIO'] as const).map((kind) => ({ scenario, faults: [{ kind, at }] })),
  );
}
