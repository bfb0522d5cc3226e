import { removeAtomic } from './atomic.js';
import { inspect, listCheckpoints } from './checkpoints.js';

/**
 * Removes old checkpoints so that the newest `keep` whole ones stay, and with each of them those that were the best and
 * the one to roll back to when it was made: falling back to any of them finds all that it needs. Before anything is removed the newest are read back
 * until one proves whole; of the others the sizes must do. Broken ones older than that are removed; newer ones are left
 * for a person to look at.
 *
 * @returns the paths removed
 */
export async function pruneCheckpoints(out: string, keep: number): Promise<string[]> {
  if (!(keep >= 1)) throw new RangeError(`At least one checkpoint must be kept, not ${keep}`);
  const candidates = [];
  const needed = new Set<number | null | undefined>();
  let kept = 0;
  for (const checkpoint of (await listCheckpoints(out)).reverse()) {
    const { record } = await inspect(checkpoint, kept === 0 ? 'content' : 'sizes');
    if (record !== undefined && kept < keep) {
      kept += 1;
      needed.add(record.best?.step).add(record.anchor);
    } else if (kept > 0) {
      candidates.push(checkpoint);
    }
  }
  const removed = candidates.filter(({ step }) => !needed.has(step)).map(({ path }) => path);
  for (const path of removed) await removeAtomic(path);
  return removed;
}
