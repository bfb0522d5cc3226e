import { machineError } from '../errors.js';
import { availableBytes } from './available.js';
import type { MemoryPlan } from './plan.js';
import type { Way } from './ways.js';

/** What of a configuration says whether memory is looked at. */
export interface MemoryCheck {
  readonly resume: boolean;
  readonly memory: { readonly limit?: number | undefined };
}

const GIB = 2 ** 30;
export const gibibytes = (bytes: number): string => `${(bytes / GIB).toFixed(2)} GiB`;

/** Parts and settings that a message names. */
const NAMED = 3;

/**
 * Refuses a stage that will not fit into memory, before anything is written. A run that is resumed has been seen to fit,
 * or has made its batches smaller, and goes on.
 *
 * @throws UserError `machine.memory-plan` (exit 3) with what takes the memory and which settings need less
 */
export function requireMemory(
  stage: string,
  { resume, memory: { limit } }: MemoryCheck,
  asked: { readonly plan: () => MemoryPlan; readonly ways: () => readonly Way[] },
): void {
  if (resume || limit === 0) return;
  const room = limit === undefined ? availableBytes() : limit * GIB;
  const { bytes, parts } = asked.plan();
  if (bytes <= room) return;
  const largest = [...parts].sort((a, b) => b.bytes - a.bytes).slice(0, NAMED);
  const ways = [...asked.ways()].sort((a, b) => b.bytes - a.bytes);
  const fitting = ways.filter((way) => way.bytes <= room).slice(0, NAMED);
  const offered = fitting.length > 0 ? fitting : ways.slice(-1);
  const settings = offered.map(
    (way) => `${gibibytes(way.bytes)} with ${way.settings.map((each) => `--set ${each}`).join(' ')}`,
  );
  const less =
    settings.length === 0 ? '' : `It takes ${settings.join('; ')}${fitting.length > 0 ? '' : ', still too much'}. `;
  throw machineError({
    code: 'machine.memory-plan',
    message: `${stage} takes about ${gibibytes(bytes)} of memory at its peak, and ${gibibytes(room)} ${limit === undefined ? 'are available' : 'are allowed'}: ${largest.map((part) => `${gibibytes(part.bytes)} ${part.name}`).join(', ')}.`,
    where: limit === undefined ? 'this machine' : 'memory.limit',
    fix: `${less}To try all the same, give --memory-limit 0.`,
  });
}
