import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { UserError } from '../../errors.js';
import { writeFileAtomic } from '../../runs/atomic.js';
import type { Host } from '../entry.js';

/** What a function of many texts gives: results as they come, or all at once. */
export type Results<Output> = AsyncIterable<Output> | Promise<Iterable<Output> | AsyncIterable<Output>>;

/** The file that `--out` asks for; refuses one that is there. */
export function outputFile(out: string | undefined, name: string): string | undefined {
  if (out === undefined) return undefined;
  const file = join(resolve(out), `${name}.jsonl`);
  if (!existsSync(file)) return file;
  throw new UserError({
    code: 'file.exists',
    message: 'The output file exists already.',
    where: file,
    fix: 'Choose another folder for --out, or move the file away.',
  });
}

/** Prints each result as it comes and, given a file, writes all of them there once they are complete. */
export async function writeResults<Output>(
  results: Results<Output>,
  show: (output: Output) => { line: string; print: string },
  host: Host,
  file: string | undefined,
): Promise<void> {
  const lines: string[] = [];
  for await (const output of await results) {
    host.signal.throwIfAborted();
    const { line, print } = show(output);
    host.print(print);
    if (file !== undefined) lines.push(`${line}\n`);
  }
  if (file !== undefined) await writeFileAtomic(file, lines.join(''));
}
