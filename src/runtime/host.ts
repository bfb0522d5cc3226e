import { Worker } from 'node:worker_threads';
import type { Answer, Envelope, Replies, Request } from './protocol.js';

/**
 * From sources (tests, development) the worker loads TypeScript through tsx, which needs a start of its own in a worker.
 * Its address is found here: a name would be looked up from the working directory.
 */
function startWorker(): Worker {
  if (!import.meta.url.endsWith('.ts')) return new Worker(new URL('./worker.js', import.meta.url));
  const tsx = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const entry = JSON.stringify(new URL('./worker.ts', import.meta.url).href);
  return new Worker(`import(${tsx}).then((tsx) => { tsx.register(); return import(${entry}); })`, { eval: true });
}

/** The calling side of the worker: requests in order, each answered by a promise. */
export class WorkerHost {
  readonly #worker = startWorker();
  readonly #pending = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #nextId = 0;
  #failure: Error | undefined;

  constructor() {
    this.#worker.on('message', (answer: Answer) => {
      const call = this.#pending.get(answer.id);
      this.#pending.delete(answer.id);
      if (this.#pending.size === 0) this.#worker.unref();
      if (answer.ok) call?.resolve(answer.value);
      else call?.reject(new Error(answer.message));
    });
    this.#worker.on('error', (error) => {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    });
    this.#worker.on('exit', () => {
      this.#fail(new Error('the runtime was closed'));
    });
    // An idle runtime must not keep the process alive.
    this.#worker.unref();
  }

  async call<K extends Request['kind']>(
    request: Request & { kind: K },
    transfer: readonly ArrayBuffer[] = [],
  ): Promise<Replies[K]> {
    if (this.#failure !== undefined) throw this.#failure;
    const id = this.#nextId++;
    const envelope: Envelope = { id, request };
    return new Promise((resolve, reject) => {
      this.#worker.postMessage(envelope, transfer);
      this.#pending.set(id, { resolve, reject });
      this.#worker.ref();
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const call of this.#pending.values()) call.reject(this.#failure);
    this.#pending.clear();
  }
}
