import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { AppendFile } from './append-file.js';

const NEWLINE = 0x0a;

const stepped = z.object({ step: z.number() });

/** A row of a JSON Lines file of a run: an object that knows the optimizer step it belongs to. */
export type SteppedRow = { step: number } & Record<string, unknown>;

/** A complete line: its text, its number from 1 and the byte at which it begins. */
interface Line {
  text: string;
  number: number;
  start: number;
}

/**
 * A JSON Lines file of a run, one object a line, steps never falling. Opening an existing file drops a torn last line,
 * which a crash leaves; everything before it stays.
 */
export class JsonLines {
  readonly #file: AppendFile;

  constructor(path: string) {
    this.#file = new AppendFile(path);
    if (!existsSync(path)) return;
    const bytes = readFileSync(path);
    const whole = bytes.lastIndexOf(NEWLINE) + 1;
    if (whole < bytes.length) this.#file.truncate(whole);
  }

  get path(): string {
    return this.#file.path;
  }

  append(row: SteppedRow): void {
    this.#file.append(`${JSON.stringify(row)}\n`);
  }

  /**
   * Drops what a resumed run will write again: everything from the first row of a later step on. A line that is no row
   * counts as later: rows up to a checkpoint are synced before it, so only what came after can be damaged.
   */
  truncateAfter(step: number): void {
    if (!existsSync(this.path)) return;
    for (const { text, start } of completeLines(readFileSync(this.path))) {
      const row = stepped.safeParse(parseOrUndefined(text));
      if (row.success && row.data.step <= step) continue;
      this.#file.truncate(start);
      return;
    }
  }

  sync(): void {
    this.#file.sync();
  }

  close(): void {
    this.#file.close();
  }
}

/** The complete lines of a JSON Lines file, without a torn last one; none where there is no file. */
export function* readLines(path: string): Generator<Line> {
  if (existsSync(path)) yield* completeLines(readFileSync(path));
}

function* completeLines(bytes: Buffer): Generator<Line> {
  let number = 0;
  for (let start = 0; ;) {
    const end = bytes.indexOf(NEWLINE, start);
    if (end < 0) return;
    number += 1;
    yield { text: bytes.toString('utf8', start, end), number, start };
    start = end + 1;
  }
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
