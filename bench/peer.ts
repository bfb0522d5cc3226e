import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { z } from 'zod';
import { UserError } from '../src/errors.js';
import type { Used } from './messages.js';
import type { Runner } from './lane.js';
import type { Setup, Turn, WorkName } from './work.js';

/** Who else does the works: a Python, and the script that does them. */
export interface PeerOptions {
  readonly python: string;
  readonly script: string;
  readonly dtypes: readonly PeerDtype[];
}

export const PEER_DTYPES = ['float32', 'bfloat16'] as const;
export type PeerDtype = (typeof PEER_DTYPES)[number];

const measured = z.object({
  seconds: z.number().positive(),
  amounts: z.record(z.string(), z.number()),
  parts: z.record(z.string(), z.number().positive()).optional(),
  cpuSeconds: z.number(),
  peakBytes: z.number(),
});

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** A work done by the Python libraries in a process of their own, when asked. */
export class Peer implements Runner {
  private constructor(
    private readonly work: WorkName,
    private readonly dtype: PeerDtype,
    private readonly child: Child,
    private readonly lines: Interface,
    private readonly said: string[],
  ) {}

  /** @throws UserError with the end of what it printed when it cannot do the work */
  static async start(
    { python, script }: PeerOptions,
    work: WorkName,
    dtype: PeerDtype,
    { model, rm, csv, threads, quick }: Setup & { readonly csv: string },
    signal: AbortSignal,
  ): Promise<Peer> {
    const given = ['--model', model, '--rm', rm, '--csv', csv, '--dtype', dtype, '--threads', String(threads)];
    const child = spawn(python, [script, work, ...given, ...(quick ? ['--quick'] : [])], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, OMP_NUM_THREADS: String(threads) },
      signal,
    });
    // Its end tells of all of these.
    for (const source of [child, child.stdin]) source.on('error', () => undefined);
    const said: string[] = [];
    child.stderr.on('data', (chunk: Buffer) => said.push(chunk.toString()));
    const peer = new Peer(work, dtype, child, createInterface(child.stdout), said);
    await peer.#answer();
    return peer;
  }

  async measure(): Promise<Turn & Used> {
    const answer = this.#answer();
    this.child.stdin.write('once\n');
    return measured.parse(await answer);
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill();
    await once(this.child, 'exit');
  }

  async #answer(): Promise<unknown> {
    const ended = new AbortController();
    try {
      const line = await Promise.race([
        once(this.lines, 'line', ended).then(([text]) => text as string),
        once(this.child, 'close', ended).then(() => undefined),
      ]);
      if (line !== undefined) return JSON.parse(line);
    } finally {
      ended.abort();
    }
    throw new UserError({
      code: 'bench.peer',
      message: `The peer cannot do ${this.work} in ${this.dtype}: ${this.said.join('').trim().split('\n').slice(-3).join(' | ') || 'it did not start'}`,
      where: this.child.spawnargs.slice(0, 2).join(' '),
      fix: 'Give with --peer a Python that has torch, transformers, trl and peft, and models that they can read.',
    });
  }
}
