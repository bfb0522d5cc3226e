import { loadDataFile } from '../data/folder.js';
import { completionOf, placeOf, type Row } from '../data/row.js';
import { splitFiles } from '../data/split.js';
import { UserError } from '../errors.js';
import type { DataConfig } from './rows.js';

/** Two texts after one prompt, of which one is preferred. */
export interface Pair {
  readonly prompt: string;
  readonly chosen: string;
  readonly rejected: string;
  /** Where its row stands, as `file:line`. */
  readonly place: string;
}

export interface StagePairs {
  readonly train: readonly Pair[];
  readonly validation: readonly Pair[];
  readonly fingerprints: Readonly<Record<string, string>>;
}

/**
 * Reads `data.file`, CSV or JSON Lines with the columns prompt, chosen and rejected, and splits it as all data is split:
 * by its headline where it has that column, else by its prompt.
 *
 * @throws UserError for a missing column, an empty text, or two texts that are the same, with `file:line`
 */
export async function loadPairs(data: DataConfig): Promise<StagePairs> {
  const { file } = data;
  if (file === undefined) throw new Error('the config was not checked: data.file is not set');
  const table = await loadDataFile(file, 'optional', { columns: { ...data.columns, completion: 'chosen' } });
  for (const name of ['prompt', 'rejected']) {
    if (!table.columns.includes(name)) throw missingColumn(name, table.columns, file);
  }
  const grouped = table.columns.includes(data.columns.headline);
  const rows = table.rows.map((row): Row =>
    grouped ? row : { ...row, fields: { ...row.fields, headline: promptOf(row) } },
  );
  const split = { seed: data.splitSeed, validationFraction: data.validationFraction };
  const { train, validation } = splitFiles({ pairs: rows }, split).pairs;
  const pairs = (side: readonly Row[]): Pair[] => side.slice(0, data.limit).map(pairOf);
  // All are checked, also those that a limit leaves out.
  for (const row of rows) pairOf(row);
  if (train.length === 0) {
    throw new UserError({
      code: 'data.no-training-rows',
      message: 'No pair is left to train on after the split.',
      where: file,
      fix: 'Add pairs, or lower data.validationFraction.',
    });
  }
  return { train: pairs(train), validation: pairs(validation), fingerprints: { [file]: table.fingerprint.sha256 } };
}

const promptOf = (row: Row): string => row.fields['prompt'] ?? '';

function pairOf(row: Row): Pair {
  const [prompt, chosen, rejected, place] = [
    promptOf(row),
    completionOf(row),
    row.fields['rejected'] ?? '',
    placeOf(row),
  ];
  if (rejected.trim() === '') throw emptyText('rejected', place);
  if (prompt.trim() === '') throw emptyText('prompt', place);
  if (chosen !== rejected) return { prompt, chosen, rejected, place };
  throw new UserError({
    code: 'data.same-texts',
    message: `The chosen and the rejected text are the same: ${JSON.stringify(chosen.slice(0, 40))}.`,
    where: place,
    fix: 'Remove the row: nothing can be learned from it.',
  });
}

const emptyText = (column: string, where: string): UserError =>
  new UserError({
    code: 'data.empty-text',
    message: `The column "${column}" is empty in this row.`,
    where,
    fix: 'Fill it in or remove the row.',
  });

const missingColumn = (name: string, columns: readonly string[], file: string): UserError =>
  new UserError({
    code: 'data.missing-column',
    message: `The data has no column "${name}"; it has ${columns.map((column) => `"${column}"`).join(', ')}.`,
    where: `${file}:1`,
    fix: 'Preference pairs have the columns prompt, chosen and rejected.',
  });
