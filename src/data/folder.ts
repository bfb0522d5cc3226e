import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.js';
import { fingerprintFile, type Fingerprint } from './fingerprint.js';
import { readRows, type DataTable } from './read.js';
import type { Columns, Row } from './row.js';
import { splitFiles, type GuardedSplit, type SplitOptions } from './split.js';

/** The files of a data folder, each `.csv` or `.jsonl`. */
export const DATA_FILES = ['sft_train', 'rm_train', 'rm_test'] as const;
export type DataFileName = (typeof DATA_FILES)[number];
export type TrainFileName = Exclude<DataFileName, 'rm_test'>;

export interface DataFile extends DataTable {
  readonly fingerprint: Fingerprint;
}

/** Every file of the folder that is there. */
export interface DataFolder {
  readonly dir: string;
  readonly files: Readonly<Partial<Record<DataFileName, DataFile>>>;
}

/** The split of every train file that is there, and the rows of the test file. */
export interface DataSplit {
  readonly files: Readonly<Partial<Record<TrainFileName, GuardedSplit>>>;
  readonly test: readonly Row[];
}

export interface FolderOptions {
  readonly columns?: Partial<Columns>;
  /** Files whose absence is an error. The others are read where they are there, because the split must see them all. */
  readonly need?: readonly DataFileName[];
}

/**
 * Reads the data files of a folder.
 *
 * @throws UserError for a missing folder, a needed file that is missing, a file that is there twice, or bad content.
 */
export async function loadDataFolder(dir: string, options: FolderOptions = {}): Promise<DataFolder> {
  if (!(await isFolder(dir))) {
    throw new UserError({
      code: 'data.missing-folder',
      message: 'The data folder does not exist.',
      where: dir,
      fix: 'Check data.dir. `duanzi data pull` fetches the published data.',
    });
  }
  const files: Partial<Record<DataFileName, DataFile>> = {};
  for (const name of DATA_FILES) {
    const file = await findFile(dir, name);
    if (file !== undefined)
      files[name] = await loadDataFile(file, name === 'sft_train' ? 'optional' : 'required', options);
    else if (options.need?.includes(name) === true) throw missing(dir, name);
  }
  if (Object.keys(files).length === 0) throw missing(dir, 'sft_train');
  return { dir, files };
}

/** Reads one data file together with its fingerprint. */
export async function loadDataFile(
  file: string,
  labels: 'required' | 'optional',
  options: Pick<FolderOptions, 'columns'> = {},
): Promise<DataFile> {
  const table = await readRows(file, { ...(options.columns && { columns: options.columns }), labels });
  return { ...table, fingerprint: await fingerprintFile(file) };
}

/** The one split of a whole folder: see {@link splitFiles}. */
export function splitFolder(folder: DataFolder, options: SplitOptions): DataSplit {
  const { sft_train, rm_train, rm_test } = folder.files;
  const test = rm_test?.rows ?? [];
  const trained = {
    ...(sft_train && { sft_train: sft_train.rows }),
    ...(rm_train && { rm_train: rm_train.rows }),
  };
  return { files: splitFiles(trained, options, test), test };
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

async function findFile(dir: string, name: DataFileName): Promise<string | undefined> {
  const found: string[] = [];
  for (const ending of ['.csv', '.jsonl']) {
    const file = join(dir, name + ending);
    if ((await stat(file).catch(() => undefined))?.isFile() === true) found.push(file);
  }
  if (found.length > 1) {
    throw new UserError({
      code: 'data.ambiguous-file',
      message: `The data folder holds both ${name}.csv and ${name}.jsonl.`,
      where: dir,
      fix: 'Keep one of them.',
    });
  }
  return found[0];
}

function missing(dir: string, name: DataFileName): UserError {
  return new UserError({
    code: 'data.missing-file',
    message: `The data folder has neither ${name}.csv nor ${name}.jsonl.`,
    where: dir,
    fix: 'Add it or check data.dir. `duanzi data pull` fetches the published data.',
  });
}
