import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Failure } from '../src/cli/report-error.js';
import type { Runner } from './lane.js';
import type { Answer, Order, Used } from './messages.js';
import type { Measurement, Setup, WorkName } from './work.js';

/** A work failed in its process; says what the process had to say. */
export class WorkFailed extends Error {
  constructor(readonly failure: Failure) {
    super(failure.text);
    this.name = 'WorkFailed';
  }
}

/** A work in a process of its own, which computes when asked and is idle otherwise: several can take turns. */
export class Contestant implements Runner<Measurement> {
  private constructor(
    private readonly child: ChildProcess,
    private readonly signal: AbortSignal,
    readonly description: string,
  ) {}

  /** @param signal ends the process, and makes what is asked of it fail with the signal's reason */
  static async start(work: WorkName, setup: Setup, signal: AbortSignal): Promise<Contestant> {
    signal.throwIfAborted();
    const child = fork(fileURLToPath(new URL('./process.ts', import.meta.url)), { serialization: 'advanced', signal });
    // An abort is told by the process's end.
    child.on('error', () => undefined);
    try {
      const { description } = await ask(child, signal, { kind: 'open', work, setup }, 'ready');
      return new Contestant(child, signal, description);
    } catch (error) {
      child.kill();
      throw error;
    }
  }

  async measure(): Promise<Measurement & Used & { readonly gflops: number }> {
    const { measurement } = await ask(this.child, this.signal, { kind: 'once' }, 'measured');
    return { ...measurement, gflops: measurement.flops / measurement.seconds / 1e9 };
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill();
    await once(this.child, 'exit');
  }
}

async function ask<K extends Answer['kind']>(
  child: ChildProcess,
  signal: AbortSignal,
  order: Order,
  kind: K,
): Promise<Answer & { kind: K }> {
  const answer = await new Promise<Answer>((resolve, reject) => {
    const ended = (code: number | null, by: string | null): void => {
      const reason: unknown = signal.reason;
      if (signal.aborted && reason instanceof Error) reject(reason);
      else reject(new Error(`the process of a work ended (${by ?? `exit code ${code ?? 'unknown'}`})`));
    };
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(message as Answer);
    });
    child.send(order);
  });
  if (answer.kind === 'failed') throw new WorkFailed(answer.failure);
  if (answer.kind !== kind) throw new Error(`a work answered '${answer.kind}' where '${kind}' was due`);
  return answer as Answer & { kind: K };
}
