import type { Used } from './messages.js';
import type { Turn } from './work.js';

/** A process that does a work when it is asked to. */
export interface Runner<T extends Turn = Turn> {
  measure(): Promise<T & Used>;
  end(): Promise<void>;
}

/**
 * One who takes turns: a process that stays and has done the work once before it counts, or, for works that take minutes
 * and most of the machine's memory, one that is started for each turn and is alone then.
 */
export class Lane<T extends Turn, R extends Runner<T>> {
  readonly turns: (T & Used)[] = [];
  #runner: R | undefined;

  constructor(
    private readonly start: () => Promise<R>,
    private readonly apart: boolean,
  ) {}

  /** Takes memory and fills caches. */
  async warmUp(): Promise<void> {
    if (this.apart) return;
    this.#runner = await this.start();
    await this.#runner.measure();
  }

  /** @returns who took the turn */
  async turn(): Promise<R> {
    const runner = (this.#runner ??= await this.start());
    this.turns.push(await runner.measure());
    if (this.apart) await this.end();
    return runner;
  }

  async end(): Promise<void> {
    const runner = this.#runner;
    this.#runner = undefined;
    await runner?.end();
  }
}
