import { dirname } from 'node:path';
import type { DataSection } from '../../config/index.js';
import { type DataFile, type DataFolder, loadDataFile, loadDataFolder } from '../../data/folder.js';
import { UserError } from '../../errors.js';

/**
 * The rows that `data.dir` or `data.file` names. A single file stands as `rm_train` where it has labels, else as
 * `sft_train`.
 *
 * @throws UserError where neither is given, and whatever reading throws
 */
export async function loadSource(data: DataSection): Promise<DataFolder> {
  const { dir, file, columns, limit } = data;
  if (dir !== undefined) return limited(await loadDataFolder(dir, { columns }), limit);
  if (file === undefined) {
    throw new UserError({
      code: 'config.missing',
      message: 'No data is named.',
      where: 'data.dir',
      fix: 'Name a folder, as in duanzi data check DIR, or give --set data.file=FILE.',
    });
  }
  const loaded = await loadDataFile(file, 'optional', { columns });
  const name = loaded.rows.every(({ label }) => label !== undefined) ? 'rm_train' : 'sft_train';
  return limited({ dir: dirname(file), files: { [name]: loaded } }, limit);
}

function limited(folder: DataFolder, limit: number | undefined): DataFolder {
  if (limit === undefined) return folder;
  const cut = Object.entries(folder.files).map(([name, file]): [string, DataFile] => [
    name,
    { ...file, rows: file.rows.slice(0, limit) },
  ]);
  return { ...folder, files: Object.fromEntries(cut) };
}
