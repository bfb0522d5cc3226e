const BUSY = 0;
const SHUT = 1;

/**
 * Keeps a worker thread from being ended within a native call: the runtime's binding cannot return into a thread that
 * is being ended, and brings the whole process down. The worker enters the gate for each request; whoever ends it
 * shuts the gate first and waits until nothing is inside.
 */
export class Gate {
  readonly #state: Int32Array;

  constructor(readonly memory = new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT)) {
    this.#state = new Int32Array(memory);
  }

  /** For the worker: whether it may begin. If so, `leave` must follow. */
  enter(): boolean {
    Atomics.store(this.#state, BUSY, 1);
    if (Atomics.load(this.#state, SHUT) === 0) return true;
    this.leave();
    return false;
  }

  leave(): void {
    Atomics.store(this.#state, BUSY, 0);
    Atomics.notify(this.#state, BUSY);
  }

  /** Lets nothing in any more. */
  shut(): void {
    Atomics.store(this.#state, SHUT, 1);
  }

  /** Blocks this thread until nothing is inside. */
  wait(): void {
    Atomics.wait(this.#state, BUSY, 1);
  }
}
