import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { UserError } from '../../errors.js';
import type { RewardRow, Scores } from '../reward.js';
import { type Bundle, bundleReward } from './bundle.js';
import type { Answer, Question, Thrown } from './protocol.js';

export interface FileRewardOptions {
  /** Seconds that loading the file, or scoring one batch, may take. */
  readonly timeLimit: number;
  /** Gets what the file prints, line by line. */
  readonly onOutput?: (line: string) => void;
}

const RESUME = 'Mend the file; --resume goes on from the newest checkpoint.';

/**
 * A reward that a user wrote in a TypeScript or JavaScript file. It runs in a thread of its own: what it throws comes
 * back as the user's error with file and line, and one that takes too long is ended, an endless loop included.
 */
export class FileReward {
  #waiting: { answer(message: Answer): void; fail(error: Error): void } | undefined;
  #failure: Error | undefined;
  #nextId = 0;

  private constructor(
    private readonly file: string,
    private readonly bundle: Bundle,
    private readonly worker: Worker,
    private readonly options: FileRewardOptions,
  ) {
    worker.on('message', (message: Answer) => this.#waiting?.answer(message));
    worker.on('error', (error: unknown) => {
      this.#fail(this.#threw(asThrown(error)));
    });
    worker.on('exit', () => {
      this.#fail(this.#fault('ended its thread', RESUME));
    });
    for (const stream of [worker.stdout, worker.stderr]) {
      createInterface({ input: stream }).on('line', (line) => options.onOutput?.(line));
    }
    // One that is idle must not keep the process alive.
    worker.unref();
  }

  /**
   * Compiles and loads a file.
   *
   * @throws UserError when it is missing, does not compile, throws while it is loaded, or exports no function
   */
  static async open(file: string, options: FileRewardOptions): Promise<FileReward> {
    const bundle = await bundleReward(file);
    const folder = await mkdtemp(path.join(tmpdir(), 'duanzi-reward-'));
    try {
      const module = path.join(folder, 'reward.mjs');
      await writeFile(module, bundle.code);
      const worker = new Worker(pathToFileURL(module), { stdout: true, stderr: true, execArgv: [] });
      const reward = new FileReward(file, bundle, worker, options);
      const ready = await reward.#ask(undefined);
      if (ready.kind === 'ready' && ready.fault !== undefined) {
        await reward.close();
        const fix = 'Write `export default` before a function from rows to scores; docs/rewards.md shows one.';
        throw reward.#fault(ready.fault, fix);
      }
      return reward;
    } finally {
      // The thread has read it by now.
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** The file's name without its ending: what its metrics are called. */
  get name(): string {
    return path.parse(this.file).name;
  }

  /** Identifies the file with all that it imports. */
  get sha256(): string {
    return this.bundle.sha256;
  }

  /**
   * The scores of a batch.
   *
   * @throws UserError when the reward throws, takes too long, or does not return one finite number or null for each row
   */
  async score(rows: readonly RewardRow[]): Promise<Scores> {
    const answer = await this.#ask({ id: this.#nextId++, rows });
    if (answer.kind === 'scores') return answer.scores;
    if (answer.kind === 'thrown') throw this.#threw(answer.thrown);
    const fix = `Return one finite number for each row, in their order, and null where the reward does not apply. ${RESUME}`;
    throw this.#fault(answer.fault ?? 'gave no scores', fix);
  }

  async close(): Promise<void> {
    this.#failure ??= new Error('the reward was closed');
    await this.worker.terminate();
  }

  /** The thread's next answer: to a question, or that it is ready. */
  async #ask(question: Question | undefined): Promise<Answer> {
    if (this.#failure !== undefined) throw this.#failure;
    const { timeLimit } = this.options;
    this.worker.ref();
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<Answer>((resolve, reject) => {
        this.#waiting = { answer: resolve, fail: reject };
        timer = setTimeout(() => {
          this.#fail(this.#tooLong(question));
          void this.worker.terminate();
        }, 1000 * timeLimit);
        if (question !== undefined) this.worker.postMessage(question);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
      this.worker.unref();
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.fail(this.#failure);
  }

  #fault(fault: string, fix: string): UserError {
    return new UserError({ code: 'reward.fault', message: `The reward ${fault}.`, where: this.file, fix });
  }

  #tooLong(question: Question | undefined): UserError {
    const what = question === undefined ? 'was not loaded' : `gave no scores for ${question.rows.length} rows`;
    return new UserError({
      code: 'reward.time-limit',
      message: `The reward ${what} within ${this.options.timeLimit} s, and was ended.`,
      where: this.file,
      fix: `Mend an endless loop or a promise that is never kept, or raise grpo.rewards.file.timeLimit. --resume goes on from the newest checkpoint.`,
    });
  }

  #threw({ name, message, stack }: Thrown): UserError {
    return new UserError({
      code: 'reward.threw',
      message: `The reward threw ${name}: ${message}`,
      where: this.#originOf(stack) ?? this.file,
      fix: RESUME,
    });
  }

  /** The innermost place of a stack in the user's own files. */
  #originOf(stack: string): string | undefined {
    for (const [, line, column] of stack.matchAll(/reward\.mjs:(\d+):(\d+)/g)) {
      const origin = this.bundle.origin(Number(line), Number(column));
      if (origin !== undefined) return origin;
    }
    return undefined;
  }
}

const asThrown = (error: unknown): Thrown =>
  error instanceof Error
    ? { name: error.name, message: error.message, stack: error.stack ?? '' }
    : { name: 'a value', message: String(error), stack: '' };
