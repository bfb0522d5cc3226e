import { Worker } from 'node:worker_threads';
import { machineError } from '../errors.js';
import { Gate } from './gate.js';
import type { Answer, Envelope, Replies, Request, WorkerData } from './protocol.js';

/**
 * From sources (tests, development) the worker loads TypeScript through tsx, which needs a start of its own in a worker.
 * Its address is found here: a name would be looked up from the working directory.
 */
function startWorker(workerData: WorkerData): Worker {
  if (!import.meta.url.endsWith('.ts')) return new Worker(new URL('./worker.js', import.meta.url), { workerData });
  const tsx = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const entry = JSON.stringify(new URL('./worker.ts', import.meta.url).href);
  return new Worker(`import(${tsx}).then((tsx) => { tsx.register(); return import(${entry}); })`, {
    eval: true,
    workerData,
  });
}

const CLOSED = 'the runtime was closed';

/** How ONNX Runtime, the C++ library and V8 say that there is no memory left. */
const OUT_OF_MEMORY = /failed to allocate memory|bad[_ ]alloc|array buffer allocation failed|out of memory/i;

/** An error of the worker: want of memory is the machine's fault, anything else a bug. */
function faultOf(message: string): Error {
  if (!OUT_OF_MEMORY.test(message)) return new Error(message);
  return machineError({
    code: 'machine.memory',
    message: 'The memory does not suffice for this computation.',
    fix: 'Lower the batch size or the lengths, or use a smaller model.',
    cause: new Error(message),
  });
}

/** The calling side of the worker: requests in order, each answered by a promise. */
export class WorkerHost {
  readonly #gate = new Gate();
  readonly #worker: Worker;
  readonly #pending = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #nextId = 0;
  #failure: Error | undefined;
  readonly #exited: Promise<void>;

  constructor(device: string) {
    this.#worker = startWorker({ gate: this.#gate.memory, device });
    const finish = (): void => {
      this.#gate.shut();
      this.#gate.wait();
    };
    process.once('exit', finish);
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        process.off('exit', finish);
        this.#fail(new Error(CLOSED));
        resolve();
      });
    });
    this.#worker.on('message', (answer: Answer) => {
      const call = this.#pending.get(answer.id);
      this.#pending.delete(answer.id);
      if (this.#pending.size === 0 && this.#failure === undefined) this.#worker.unref();
      if (answer.ok) call?.resolve(answer.value);
      else call?.reject(faultOf(answer.message));
    });
    this.#worker.on('error', (error) => {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
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

  /** Rejects all that is pending at once; done when the worker has ended, which it does after the request at hand. */
  async close(): Promise<void> {
    this.#fail(new Error(CLOSED));
    this.#gate.shut();
    this.#worker.ref();
    this.#worker.postMessage({ id: this.#nextId++, request: { kind: 'close' } } satisfies Envelope);
    await this.#exited;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const call of this.#pending.values()) call.reject(this.#failure);
    this.#pending.clear();
  }
}
