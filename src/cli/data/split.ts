import { readdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import type { DataSection } from '../../config/index.js';
import { splitFolder } from '../../data/folder.js';
import type { Row } from '../../data/row.js';
import { UserError } from '../../errors.js';
import { writeFolderAtomic } from '../../runs/atomic.js';
import { errnoOf } from '../../runs/file-faults.js';
import type { Setup } from '../entry.js';
import { addConfigOptions, readConfig, readReporting } from '../options.js';
import { loadSource } from './source.js';

const options = z.object({ out: z.string() });

/** `data split [DIR] --out DIR`: writes the sides of the one split as JSON Lines files, for use elsewhere. */
export const setup: Setup = (command, host) => {
  command.argument('[dir]', 'Folder with sft_train.csv and others; otherwise data.dir or data.file.');
  command.requiredOption('--out <dir>', 'Folder to write; must be new or empty.');
  addConfigOptions(command, 'data');
  command.action(async (dir: string | undefined) => {
    const { data } = await readConfig(command, 'data', [], { 'data.dir': dir });
    const out = resolve(options.parse(command.opts()).out);
    await requireEmpty(out);
    const { splitSeed: seed, validationFraction } = data;
    const { files } = splitFolder(await loadSource(data), { seed, validationFraction });
    const written: { path: string; rows: number }[] = [];
    await writeFolderAtomic(out, async (folder) => {
      for (const [name, split] of Object.entries(files)) {
        for (const side of ['train', 'validation', 'dropped'] as const) {
          const file = `${name}.${side}.jsonl`;
          await writeFile(join(folder, file), split[side].map((row) => lineOf(row, data.columns)).join(''));
          written.push({ path: join(out, file), rows: split[side].length });
        }
      }
    });
    if (readReporting(command).json) host.print(JSON.stringify({ files: written }));
    else for (const { path, rows } of written) host.print(`${path} (${rows} rows)`);
  });
};

/** The row as it was read; what only repeats a column under the name of its role is left out. */
function lineOf({ fields }: Row, columns: DataSection['columns']): string {
  const roles = new Map<string, string>(Object.entries(columns));
  const own = Object.entries(fields).filter(([name, value]) => {
    const column = roles.get(name);
    return column === undefined || column === name || fields[column] !== value;
  });
  return `${JSON.stringify(Object.fromEntries(own))}\n`;
}

async function requireEmpty(folder: string): Promise<void> {
  const names = await readdir(folder).catch((error: unknown) => {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return [];
    if (errno === 'ENOTDIR') return ['a file'];
    throw error;
  });
  if (names.length === 0) return;
  throw new UserError({
    code: 'file.not-empty',
    message: 'The output folder is not empty.',
    where: folder,
    fix: 'Choose a new folder for --out, or empty this one.',
  });
}
