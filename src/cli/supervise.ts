import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { machineError } from '../errors.js';
import { readManifest } from '../runs/manifest.js';
import { memoryKills } from '../runs/process-identity.js';
import { STAGE_FOLDERS } from '../runs/stage-folders.js';
import { EndedElsewhere, STOP, WATCHED } from './watched.js';

/** How the command line is started again, and what the system counts. */
export interface Supervision {
  readonly script: string;
  readonly argv: readonly string[];
  readonly execArgv: readonly string[];
  /** Processes that the system has killed for want of memory so far. */
  readonly memoryKills: () => number;
}

/**
 * Does the command that this process was started for in another one (see `supervise`).
 *
 * @returns false, and does nothing, where the system does not tell of what it kills, so that nothing could be done about it
 */
export async function superviseOwn(argv: readonly string[], out: string, signal: AbortSignal): Promise<boolean> {
  const script = process.argv[1];
  if (script === undefined || memoryKills() === null) return false;
  await supervise({ script, argv, execArgv: process.execArgv, memoryKills: () => memoryKills() ?? 0 }, out, signal);
  return true;
}

/**
 * Does a training command in a process of its own. When the system kills that for want of memory, it is started again with
 * `--resume`: the run folder's lock tells it what its predecessor died of, so that it goes on from the last checkpoint with
 * half as many samples at once.
 *
 * @param out the command's run folder
 * @throws EndedElsewhere when it has ended with an exit code other than 0
 * @throws UserError `machine.memory` (exit code 3) when fewer samples did not help, or there can be none
 */
export async function supervise(
  { script, argv, execArgv, memoryKills: killsSoFar }: Supervision,
  out: string,
  signal: AbortSignal,
): Promise<void> {
  let halved = -1;
  for (let args = argv; ; args = argv.includes('--resume') ? argv : [...argv, '--resume']) {
    const before = killsSoFar();
    const child = fork(script, [...args], { execArgv: [...execArgv], env: { ...process.env, [WATCHED]: '1' } });
    const { code, by } = await endOf(child, signal);
    if (code === 0) return;
    if (code !== null) throw new EndedElsewhere(code);
    if (by !== 'SIGKILL' || killsSoFar() <= before || signal.aborted) return dieLike(by!);
    const times = await halvingsIn(out);
    if (times === halved) throw tooSmall(out);
    halved = times;
  }
}

async function endOf(
  child: ChildProcess,
  signal: AbortSignal,
): Promise<{ code: number | null; by: NodeJS.Signals | null }> {
  const stop = (): void => {
    // It may just have ended by itself.
    if (child.connected) child.send(STOP, () => undefined);
  };
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop);
  try {
    const [code, by] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return { code, by };
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** What ended the other process ends this one, so that a shell reports it. */
async function dieLike(signal: NodeJS.Signals): Promise<never> {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
  return new Promise(() => undefined);
}

/** How often a run, or the stages of a pipeline, went on with fewer samples at once. */
async function halvingsIn(out: string): Promise<number> {
  const manifests = await Promise.all(
    [out, ...STAGE_FOLDERS.map((name) => path.join(out, name))].map((folder) => readManifest(folder)),
  );
  const told = manifests.flatMap((manifest) => manifest?.interventions ?? []);
  return told.filter(({ code }) => code === 'memory.smaller-batches').length;
}

const tooSmall = (out: string): Error =>
  machineError({
    code: 'machine.memory',
    message: 'The system killed the run for want of memory again, and fewer samples at once did not help.',
    where: out,
    fix: 'Use a smaller model or shorter texts, or give the machine more memory; --resume goes on from the last checkpoint.',
  });
