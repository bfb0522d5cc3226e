import type { z } from 'zod';
import type { dataSection } from '../config/data.js';
import { loadDataFile, loadDataFolder, splitFolder, type DataFile, type TrainFileName } from '../data/folder.js';
import type { Row } from '../data/row.js';
import { splitFiles } from '../data/split.js';
import { checkTemplatesFor } from '../data/templates.js';
import { UserError } from '../errors.js';

export type DataConfig = z.output<typeof dataSection>;

/** A stage's rows on both sides of the one split, and what identifies the files that they came from. */
export interface StageRows {
  readonly train: readonly Row[];
  readonly validation: readonly Row[];
  /** Rows of rm_test or what stands in for it, which nothing learns from or is chosen by. */
  readonly test: readonly Row[];
  readonly fingerprints: Readonly<Record<string, string>>;
}

/**
 * Reads the rows of one or several of a folder's files (or of `data.file` in their place) and splits them. All files of
 * a folder are read even where one is asked for, because what is held out of one must be held out of all.
 *
 * With `data.file` alone the split is the same function of headline, seed and fraction, so that stages with a file each
 * still agree on every headline. What cannot be seen from one file is a text that another file holds out under another
 * headline, and test rows that lie elsewhere: for those to be left out too, give a folder.
 *
 * @param options.testFile a file that stands in for rm_test; only the stage that is given it leaves its rows out
 */
export async function loadRows(
  data: DataConfig,
  names: readonly TrainFileName[],
  labels: 'required' | 'optional',
  options: { readonly testFile?: string | undefined } = {},
): Promise<StageRows> {
  const split = { seed: data.splitSeed, validationFraction: data.validationFraction };
  const limited = (rows: readonly Row[]): readonly Row[] => rows.slice(0, data.limit);
  const test = await testFileOf(data, options.testFile);
  if (data.file !== undefined) {
    const file = await loadDataFile(data.file, labels, { columns: data.columns });
    checkTemplatesFor(data.templates, file);
    const { train, validation } = splitFiles({ file: file.rows }, split, test.rm_test?.rows).file;
    const fingerprints = fingerprintsOf({ [data.file]: file, ...test });
    return sides(limited(train), limited(validation), test.rm_test?.rows ?? [], fingerprints, data.file);
  }
  if (data.dir === undefined) throw new Error('the config was not checked: neither data.dir nor data.file is set');
  const there = await loadDataFolder(data.dir, { columns: data.columns, need: names });
  const folder = { ...there, files: { ...there.files, ...test } };
  const files = splitFolder(folder, split);
  for (const name of names) {
    checkTemplatesFor(data.templates, folder.files[name]!);
  }
  const train = names.flatMap((name) => files.files[name]!.train);
  const validation = names.flatMap((name) => files.files[name]!.validation);
  return sides(limited(train), limited(validation), files.test, fingerprintsOf(folder.files), data.dir);
}

async function testFileOf(data: DataConfig, file: string | undefined): Promise<{ rm_test?: DataFile }> {
  if (file === undefined) return {};
  const rm_test = await loadDataFile(file, 'required', { columns: data.columns });
  checkTemplatesFor(data.templates, rm_test);
  return { rm_test };
}

function sides(
  train: readonly Row[],
  validation: readonly Row[],
  test: readonly Row[],
  fingerprints: Record<string, string>,
  where: string,
): StageRows {
  if (train.length > 0) return { train, validation, test, fingerprints };
  throw new UserError({
    code: 'data.no-training-rows',
    message: 'No row is left to train on after the split.',
    where,
    fix: 'Add rows, or lower data.validationFraction.',
  });
}

const fingerprintsOf = (files: Readonly<Record<string, DataFile | undefined>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(files).flatMap(([name, file]) => (file === undefined ? [] : [[name, file.fingerprint.sha256]])),
  );
