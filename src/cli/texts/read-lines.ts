import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import type { z } from 'zod';
import { UserError } from '../../errors.js';

/** A file of JSON Lines that are one of the forms of `schema`. */
export interface LinesOf<Schema extends z.ZodType<object>> {
  /** A path, or `-` for standard input. */
  readonly file: string;
  readonly schema: Schema;
  /** The forms, for people: `{"text"} or {"input_ids"}`. */
  readonly forms: string;
}

/**
 * Reads all lines before any is worked on, so that a fault in the last one costs nothing. Blank lines are skipped; each
 * of the others remembers its place.
 *
 * @throws UserError with `file:line` for a line that is no JSON or of another form, and for a file without lines
 */
export async function readLines<Schema extends z.ZodType<object>>(
  source: LinesOf<Schema>,
): Promise<(z.output<Schema> & { readonly where: string })[]> {
  const { file, schema, forms } = source;
  const lines = (await readInput(file)).replace(/^\uFEFF/, '').split(/\r?\n/);
  const records = lines.flatMap((line, index) => {
    if (line.trim() === '') return [];
    const where = `${file}:${index + 1}`;
    const parsed = schema.safeParse(parseJson(line, where));
    if (parsed.success) return [{ ...parsed.data, where }];
    const reason = parsed.error.issues.find(({ code }) => code === 'custom')?.message;
    throw new UserError({
      code: 'input.form',
      message: `This line is not of a known form${reason === undefined ? '' : `: ${reason}`}.`,
      where,
      fix: `Write ${forms}.`,
    });
  });
  if (records.length > 0) return records;
  throw new UserError({ code: 'input.empty', message: 'The input has no lines.', where: file, fix: `Write ${forms}.` });
}

function parseJson(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new UserError({
      code: 'input.json',
      message: `This line is not JSON: ${error instanceof Error ? error.message : String(error)}.`,
      where,
      fix: 'Write one JSON object a line.',
      cause: error,
    });
  }
}

async function readInput(file: string): Promise<string> {
  if (file === '-') return readAll(process.stdin);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(await readFile(file));
  } catch (error) {
    const reason =
      error instanceof TypeError ? 'it is not UTF-8' : error instanceof Error ? error.message : String(error);
    throw new UserError({
      code: 'input.unreadable',
      message: `The input cannot be read: ${reason}.`,
      where: file,
      fix: 'Give --input a JSON Lines file in UTF-8, or - for standard input.',
      cause: error,
    });
  }
}
