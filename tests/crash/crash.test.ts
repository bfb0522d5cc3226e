import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import type { Write } from './faults.js';
import { CrashHarness, nameOf, type Point } from './harness.js';
import { diskPoints, randomPoints } from './points.js';

const tmp = fileURLToPath(new URL('../../tmp', import.meta.url));

// The whole of it is `npm run test:crash`.
it('a run killed at a write, or on a full or failing disk, ends as if it had not been', async () => {
  await mkdir(tmp, { recursive: true });
  const folder = await mkdtemp(`${tmp}/crash-`);
  try {
    const harness = await CrashHarness.create(folder);
    const writes = await harness.reference('sft');
    const points = [
      ...randomPoints('sft', writes, 4, 7),
      ...diskPoints('sft', writes, 1),
      superfluous(await harness.reference('grpo')),
    ];
    const verdicts = [];
    for await (const { point, met, problem } of harness.try(points))
      verdicts.push({ name: nameOf(point), met, problem });
    expect(verdicts.filter(({ problem }) => problem !== undefined)).toEqual([]);
    expect(verdicts).toHaveLength(points.length);
    for (const { name, met } of verdicts) expect(met, name).toBeGreaterThan(0);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

/** A kill once the last checkpoint is in its place, before the one that it makes superfluous is removed. */
function superfluous(writes: readonly Write[]): Point {
  const placed = writes.findLastIndex(({ call, path }) => call === 'rename' && /checkpoints\/\.step-\d+/.test(path));
  const removed = writes.findIndex(({ path }, at) => at > placed && /checkpoints\/step-\d+$/.test(path));
  return { scenario: 'grpo', faults: [{ kind: 'kill', at: removed }] };
}
