import { setImmediate } from 'node:timers/promises';

/** Lets long computations give the event loop a turn, so that a terminal stays alive and an abort is seen. */
export class Pacer {
  private last = performance.now();

  /** @param every milliseconds of computation between two turns */
  constructor(
    private readonly signal?: AbortSignal,
    private readonly every = 20,
  ) {}

  /** Call inside the loop. @throws the signal's reason once it is aborted */
  async breathe(): Promise<void> {
    if (performance.now() - this.last < this.every) return;
    await setImmediate();
    this.signal?.throwIfAborted();
    this.last = performance.now();
  }
}
