import { CsvError, parse, type InfoRecord } from 'csv-parse/sync';
import type { Message } from '../config/messages.js';
import { UserError } from '../errors.js';
import { countNewlines } from './text-file.js';

/** The records of a file before they are rows: column names, and values by column with their line. */
export interface Table {
  readonly columns: readonly string[];
  readonly records: readonly {
    readonly line: number;
    readonly values: Readonly<Record<string, string>>;
    /** A conversation; JSON Lines only. */
    readonly messages?: readonly Message[];
  }[];
}

interface ParsedRecord {
  readonly record: string[];
  readonly info: InfoRecord;
}

/**
 * Reads RFC 4180 text: comma, double quotes, quoted fields may hold line breaks. Blank lines are skipped.
 *
 * @param text With `\n` line ends, as {@link readTextFile} gives it.
 * @throws UserError for an unclosed quote, a stray quote, a wrong field count, a column that is there twice.
 */
export function parseCsv(text: string, file: string): Table {
  const [header, ...rows] = parseRecords(text, file);
  const columns = (header?.record ?? []).map((name) => name.trim());
  const twice = columns.find((name, i) => name !== '' && columns.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new UserError({
      code: 'data.duplicate-column',
      message: `The header names the column "${twice}" twice.`,
      where: `${file}:${header?.info.lines ?? 1}`,
      fix: 'Rename or remove one of them.',
    });
  }
  const named = columns.map((name, i) => ({ name, i })).filter(({ name }) => name !== '');
  return {
    columns: named.map(({ name }) => name),
    records: rows.map(({ record, info }) => ({
      line: info.lines - embeddedNewlines(record),
      values: Object.fromEntries(named.map(({ name, i }) => [name, record[i] ?? ''])),
    })),
  };
}

function parseRecords(text: string, file: string): ParsedRecord[] {
  try {
    // The types of csv-parse do not know that `info` wraps every record.
    return parse(text, { info: true, skip_empty_lines: true, record_delimiter: '\n' }) as unknown as ParsedRecord[];
  } catch (cause) {
    if (cause instanceof CsvError) throw malformed(cause, text, file);
    throw cause;
  }
}

function malformed(cause: CsvError, text: string, file: string): UserError {
  const line = Number(cause['lines']);
  switch (cause.code) {
    case 'CSV_QUOTE_NOT_CLOSED':
      return new UserError({
        code: 'data.unclosed-quote',
        message: 'A double quote opens a field here and nothing closes it.',
        where: `${file}:${lineOfOpenQuote(text, Number(cause['bytes']))}`,
        fix: 'Close it, or write a double quote inside a quoted field twice ("").',
        cause,
      });
    case 'CSV_RECORD_INCONSISTENT_FIELDS_LENGTH': {
      const record = cause['record'] as readonly string[];
      const got = record.length;
      const expected = Number(/expect (\d+)/u.exec(cause.message)?.[1]);
      return new UserError({
        code: 'data.field-count',
        message: `The row has ${got} fields where the header has ${expected}.`,
        where: `${file}:${line - embeddedNewlines(record)}`,
        fix:
          got > expected
            ? 'Put a field that holds a comma or a line break between double quotes.'
            : 'Add the missing fields; an empty one still needs its comma.',
        cause,
      });
    }
    case 'CSV_INVALID_CLOSING_QUOTE':
      return new UserError({
        code: 'data.stray-quote',
        message: `A double quote opens a field here, and the one in line ${line} that closes it has text after it.`,
        where: `${file}:${lineOfOpenQuote(text, Number(cause['bytes']))}`,
        fix: 'Close the field where it ends, and write each double quote inside it twice ("").',
        cause,
      });
    default:
      return new UserError({
        code: 'data.stray-quote',
        message: 'A double quote stands inside a field that does not begin with one.',
        where: `${file}:${line}`,
        fix: 'Put the whole field between double quotes and write each double quote inside it twice ("").',
        cause,
      });
  }
}

/** csv-parse names the line where it gave up; the quote stands after the last field that it finished. */
function lineOfOpenQuote(text: string, bytesFinished: number): number {
  const finished = Buffer.from(text).subarray(0, bytesFinished).toString();
  const blank = /^\n*/u.exec(text.slice(finished.length))![0];
  return countNewlines(finished) + blank.length + 1;
}

function embeddedNewlines(record: readonly string[]): number {
  return record.reduce((sum, value) => sum + countNewlines(value), 0);
}
