import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Writes into a folder that is being made the length, in tokens, to which texts for its model are cut: as
 * `model_max_length` of tokenizer_config.json, where transformers looks for it. What the tokenizer said before stays.
 */
export async function recordMaxLength(folder: string, maxLength: number): Promise<void> {
  const config =
    (await readJsonIfThere(join(folder, 'tokenizer_config.json'))) ??
    (await readJsonIfThere(join(folder, 'special_tokens_map.json'))) ??
    {};
  const text = JSON.stringify({ ...config, model_max_length: maxLength }, null, 2);
  await writeFile(join(folder, 'tokenizer_config.json'), `${text}\n`);
}

async function readJsonIfThere(file: string): Promise<object | undefined> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  });
  return text === undefined ? undefined : (JSON.parse(text) as object);
}
