import { constants } from 'node:os';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** The command line as users run it. */
export const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
/** The same machinery with two stages that only wait. */
export const WAITING = fileURLToPath(new URL('./waiting-cli.ts', import.meta.url));

export interface Finished {
  /** As a shell reports it: 128 + the number of the signal that ended the process. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface SpawnOptions {
  readonly script?: string;
  readonly cwd?: string;
  /** Called for each piece of stderr with all of it so far. */
  readonly onStderr?: (all: string, kill: (signal: NodeJS.Signals) => void) => void;
  /** The same of stdout. */
  readonly onStdout?: (all: string, kill: (signal: NodeJS.Signals) => void) => void;
  /** Closes the reading end of stdout after the first piece. */
  readonly leaveStdout?: boolean;
}

/** Runs a command in a process of its own, from its TypeScript sources. */
export async function spawnCli(argv: readonly string[], options: SpawnOptions = {}): Promise<Finished> {
  const tsx = import.meta.resolve('tsx');
  const child = spawn(process.execPath, ['--import', tsx, options.script ?? MAIN, ...argv], {
    cwd: options.cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    stdout += piece;
    options.onStdout?.(stdout, (signal) => child.kill(signal));
    if (options.leaveStdout === true) child.stdout.destroy();
  });
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    stderr += piece;
    options.onStderr?.(stderr, (signal) => child.kill(signal));
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { code: signal === null ? code : 128 + constants.signals[signal], stdout, stderr };
}
