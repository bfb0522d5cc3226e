import { spawnSync } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { z } from 'zod';
import { errnoOf } from './file-faults.js';

/** What tells a process from every other one, also after a reboot and when its number is given away again. */
export const processIdentity = z.object({
  pid: z.int().positive(),
  host: z.string(),
  /** Which start of the kernel it runs under; null where the system does not say. */
  boot: z.string().nullable(),
  /** The namespace that its number belongs to: containers number their processes on their own. */
  namespace: z.string().nullable(),
  /** When it began, in the system's own words; null where the system does not say. */
  started: z.string().nullable(),
});
export type ProcessIdentity = z.infer<typeof processIdentity>;

export function ownIdentity(): ProcessIdentity {
  return {
    pid: process.pid,
    host: hostname(),
    boot: contentOrNull('/proc/sys/kernel/random/boot_id'),
    namespace: namespaceOf(),
    started: startOf(process.pid),
  };
}

/**
 * Whether the process still runs. `elsewhere`: on a machine, under a boot or in a container whose processes cannot be
 * seen from here.
 */
export function fateOf(known: ProcessIdentity, own: ProcessIdentity): 'running' | 'gone' | 'elsewhere' {
  if (known.host !== own.host || known.boot !== own.boot || known.namespace !== own.namespace) return 'elsewhere';
  if (!isRunning(known.pid)) return 'gone';
  const started = startOf(known.pid);
  return started !== null && known.started !== null && started !== known.started ? 'gone' : 'running';
}

/** Whether a process of that number lives. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === 'EPERM';
  }
}

/** When a process began: clock ticks since boot on Linux, a date where `ps` tells one. */
function startOf(pid: number): string | null {
  if (process.platform === 'linux') {
    const stat = contentOrNull(`/proc/${pid}/stat`);
    // The second field is the program's name in parentheses, which may hold blanks; the start is the 22nd.
    return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  }
  if (process.platform === 'win32') return null;
  const { stdout, status } = spawnSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

/** How many processes the system has killed for want of memory since it started; null where it does not say. */
export function memoryKills(): number | null {
  const count = /^oom_kill (\d+)$/m.exec(contentOrNull('/proc/vmstat') ?? '')?.[1];
  return count === undefined ? null : Number(count);
}

function namespaceOf(): string | null {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return null;
  }
}

function contentOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}
