import type { Message } from '../config/messages.js';

/** One row of a data file. */
export interface Row {
  /** The file as it was named by the caller. */
  readonly file: string;
  /** The line (1-based) at which the row begins. */
  readonly line: number;
  /** Column name → value; a column that plays a role is also found under the role's name. */
  readonly fields: Readonly<Record<string, string>>;
  /**
   * The conversation that the row is, ending with the assistant's turn. Its `completion` is that turn, and its
   * `headline`, where it has no column of its own, what was said before it.
   */
  readonly messages?: readonly Message[];
  /** 1: humorous, 0: not. Absent where the file has no label column or none was asked for. */
  readonly label?: 0 | 1;
}

/** Role → column name. Templates may use either name. */
export interface Columns {
  readonly headline: string;
  readonly word1: string;
  readonly word2: string;
  readonly completion: string;
  readonly label: string;
}

/** The columns of the published files. */
export const DEFAULT_COLUMNS: Columns = {
  headline: 'headline',
  word1: 'word1',
  word2: 'word2',
  completion: 'joke',
  label: 'label',
};

/** `file:line`, as editors and compilers write it. */
export function placeOf(row: Pick<Row, 'file' | 'line'>): string {
  return `${row.file}:${row.line}`;
}

/** The text that is to be learned or judged. */
export function completionOf(row: Row): string {
  const completion = row.fields['completion'];
  if (completion === undefined) throw new Error(`row ${placeOf(row)} was made without a completion`);
  return completion;
}

/** The headline, or undefined where the row has none or an empty one. */
export function headlineOf(row: Row): string | undefined {
  const headline = row.fields['headline'];
  return headline === undefined || headline.trim() === '' ? undefined : headline;
}
