import { extname } from 'node:path';
import { plainPrompt } from '../config/messages.js';
import { UserError } from '../errors.js';
import { parseCsv, type Table } from './csv.js';
import { parseJsonl } from './jsonl.js';
import { didYouMean } from './nearest.js';
import { DEFAULT_COLUMNS, type Columns, type Row } from './row.js';
import { readTextFile } from './text-file.js';

const ROLES = ['headline', 'word1', 'word2', 'completion', 'label'] as const satisfies readonly (keyof Columns)[];

export interface ReadOptions {
  /** Role → column name; roles that are left out keep the published names. */
  readonly columns?: Partial<Columns>;
  /** `required`: a file without a label column is refused. `optional` (the default): labels are read where there are some. */
  readonly labels?: 'required' | 'optional';
}

export interface DataTable {
  readonly file: string;
  /** What templates may use: the file's columns, then the roles that have one. */
  readonly columns: readonly string[];
  readonly rows: readonly Row[];
}

/**
 * Reads a CSV (UTF-8, with or without byte order mark) or JSON Lines file (by its ending, `.jsonl` or `.ndjson`).
 *
 * @throws UserError with `file:line` for whatever is wrong with the file; see the tests for the list.
 */
export async function readRows(file: string, options: ReadOptions = {}): Promise<DataTable> {
  const text = await readTextFile(file);
  const isJsonl = ['.jsonl', '.ndjson'].includes(extname(file).toLowerCase());
  return toRows(isJsonl ? parseJsonl(text, file) : parseCsv(text, file), file, options);
}

function toRows(table: Table, file: string, options: ReadOptions): DataTable {
  const columns: Columns = { ...DEFAULT_COLUMNS, ...options.columns };
  if (table.records.some(({ messages }) => messages === undefined)) requireColumn('completion', columns, table, file);
  const hasLabels = options.labels === 'required' || table.columns.includes(columns.label);
  if (hasLabels) requireColumn('label', columns, table, file);
  if (table.records.length === 0) {
    throw new UserError({
      code: 'data.no-rows',
      message: 'The data file has a header and no rows.',
      where: file,
      fix: 'Add at least one row.',
    });
  }
  const aliases = ROLES.filter((role) => table.columns.includes(columns[role]) && !table.columns.includes(role));
  const rows = table.records.map(({ line, values, messages }): Row => {
    const where = `${file}:${line}`;
    const fields = { ...values };
    for (const role of aliases) fields[role] = values[columns[role]] ?? '';
    // A file may have a column of the role's name that plays no role; the role wins for the completion.
    fields['completion'] = messages?.at(-1)?.content ?? values[columns.completion] ?? '';
    if (messages !== undefined && (fields['headline'] ?? '') === '') fields['headline'] = plainPrompt(messages).trim();
    if (fields['completion'].trim() === '') throw emptyCompletion(columns.completion, where);
    const conversation = messages === undefined ? {} : { messages };
    if (!hasLabels) return { file, line, fields, ...conversation };
    return {
      file,
      line,
      fields,
      ...conversation,
      label: parseLabel(values[columns.label] ?? '', columns.label, where),
    };
  });
  return { file, columns: [...table.columns, ...aliases], rows };
}

function requireColumn(role: 'completion' | 'label', columns: Columns, table: Table, file: string): void {
  const name = columns[role];
  if (table.columns.includes(name)) return;
  throw new UserError({
    code: 'data.missing-column',
    message: `The data has no column "${name}"; it has ${quoteAll(table.columns)}.`,
    where: `${file}:1`,
    fix: `${didYouMean(name, table.columns)}${separatorHint(table)}Rename the column, or set data.columns.${role} to its name.`,
  });
}

/** A header that is one column with semicolons or tabs in its name was separated by them. */
function separatorHint(table: Table): string {
  const [only, second] = table.columns;
  if (only === undefined || second !== undefined) return '';
  if (only.includes('\t')) return 'The columns seem to be separated by tabs; separate them by commas. ';
  if (only.includes(';')) return 'The columns seem to be separated by semicolons; separate them by commas. ';
  return '';
}

function quoteAll(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.map((name) => `"${name}"`).join(', ');
}

function emptyCompletion(column: string, where: string): UserError {
  return new UserError({
    code: 'data.empty-completion',
    message: `The column "${column}" is empty in this row.`,
    where,
    fix: 'Fill it in or remove the row.',
  });
}

function parseLabel(value: string, column: string, where: string): 0 | 1 {
  switch (value.trim()) {
    case '0':
      return 0;
    case '1':
      return 1;
    default:
      throw new UserError({
        code: 'data.invalid-label',
        message: `The column "${column}" holds ${JSON.stringify(value)}, which is neither 0 nor 1.`,
        where,
        fix: 'Write 1 for a humorous text and 0 for one that is not.',
      });
  }
}
