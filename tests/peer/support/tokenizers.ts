import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { loadTokenizer } from '../../../src/text/load-tokenizer.js';
import { count, find, python } from './python.js';

const TEXTS = [
  '标题：猫排队买包子',
  '幽默文本：',
  'Hello 123\n“你好”😀',
  '',
  ' 一 ',
  '雨伞、键盘\n\n笑话：雨伞遇见键盘。',
];

/** Expects transformers to open a model folder's tokenizer as we do: the same ids and special tokens. */
export async function compareTokenizers(check: string, model: string, folder: string): Promise<void> {
  const file = join(folder, 'texts.json');
  await writeFile(file, JSON.stringify(TEXTS));
  const theirs = (await python('encode_auto', model, file)) as { ids: number[][]; special: Record<string, number> };
  const tokenizer = await loadTokenizer(model);
  expect(TEXTS.map((text) => tokenizer.encode(text))).toEqual(theirs.ids);
  const special = Object.entries(tokenizer.special).map(([role, id]) => [`${role}_token`, id]);
  expect(Object.fromEntries(special)).toEqual(theirs.special);
  find({ check, peer: 'transformers', compared: `${count(TEXTS.length)} texts`, largest: 0, allowed: 0 });
}
