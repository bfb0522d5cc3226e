import type { Entry, Host } from './entry.js';
import { stopOnSignals } from './interrupt.js';
import { runProgram } from './program.js';
import { EndedElsewhere, isWatched, stopWithWatcher } from './watched.js';

/**
 * Runs the command line `argv` (without node and script) and resolves to the exit code: 0 done, 1 a bug, 2 the input
 * is wrong, 3 the machine lacks something, 130 stopped by a person.
 */
export async function runCli(argv: readonly string[], entries: readonly Entry[]): Promise<number> {
  const controller = new AbortController();
  const host: Host = {
    signal: controller.signal,
    print: (line) => process.stdout.write(`${line}\n`),
    people: process.stderr,
    elsewhere: async (out) =>
      !isWatched() && (await import('./supervise.js')).superviseOwn(argv, out, controller.signal),
  };
  const tell = (line: string): void => {
    process.stderr.write(`${line}\n`);
  };
  // Whoever read the output has left: stop as if asked to. What people would read may go nowhere.
  process.stdout.on(
    'error',
    leave(() => {
      controller.abort();
    }),
  );
  process.stderr.on(
    'error',
    leave(() => undefined),
  );
  const release = isWatched() ? stopWithWatcher(controller) : stopOnSignals(controller, tell);
  try {
    await runProgram(argv, entries, host);
    return 0;
  } catch (thrown) {
    if (thrown instanceof EndedElsewhere) return thrown.exitCode;
    const { failureOf } = await import('./report-error.js');
    const { exitCode, text, error } = failureOf(thrown, controller.signal);
    tell(text);
    if (argv.includes('--json')) host.print(JSON.stringify({ error }));
    return exitCode;
  } finally {
    release();
  }
}

/** Handles a reader that closed its end (EPIPE); any other fault of the stream is a bug. */
function leave(onClosed: () => void): (error: NodeJS.ErrnoException) => void {
  return (error) => {
    if (error.code !== 'EPIPE') throw error;
    onClosed();
  };
}
