import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { completionOf, headlineOf } from '../../../src/data/row.js';
import { readRows } from '../../../src/data/read.js';
import { buildWordPiece } from '../../../src/text/build-word-piece.js';
import { loadTokenizer } from '../../../src/text/load-tokenizer.js';
import { serializeTokenizer, type TokenizerFiles } from '../../../src/text/tokenizer-files.js';
import { trainByteLevelBpe } from '../../../src/text/train-bpe.js';
import { temporaryFolder } from '../support/folder.js';
import { count, find, python } from '../support/python.js';

interface Encoded {
  readonly size: number;
  readonly ids: readonly (readonly number[])[];
  readonly decoded: readonly string[];
}

const TRICKY = [
  '',
  ' ',
  '\n\n标题：  两个空格\t和制表符\r\n',
  '“弯引号”——破折号……省略号',
  '😀👨‍👩‍👧‍👦🇨🇳 emoji',
  'Café naïve ＡＢＣ１２３ ﬁ',
  'e\u0301 与 é、が 与 か\u3099',
  '㍿ ½ ² Ⅳ 한국어 ไทย العربية',
  "I'm sure it's 12345.678 — don't!!!",
  '<|im_end|>中间<|endoftext|>',
  '[MASK]猫[SEP]',
  '𠮷野家 𝒳 \u0000 \uFFFD \uE000',
  'A'.repeat(300),
];

async function corpus(): Promise<string[]> {
  const file = fileURLToPath(new URL('../../../assets/mini-humor/rm_train.csv', import.meta.url));
  const { rows } = await readRows(file);
  return rows.map((row) => `${headlineOf(row) ?? ''}\n${completionOf(row)}`);
}

const kinds: readonly (readonly [string, (texts: readonly string[]) => TokenizerFiles])[] = [
  [
    'byte-level BPE',
    (texts) =>
      trainByteLevelBpe(texts, {
        vocabSize: 2000,
        specialTokens: ['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
        eosToken: '<|im_end|>',
        padToken: '<|endoftext|>',
      }),
  ],
  ['WordPiece', (texts) => buildWordPiece(texts, { vocabSize: 1500 })],
];

it.each(kinds)('tokenizers encodes and decodes with a %s that we made as we do', async (kind, make) => {
  const folder = join(await temporaryFolder(), 'tokenizer');
  const texts = await corpus();
  await mkdir(folder);
  for (const [name, content] of Object.entries(serializeTokenizer(make(texts.slice(0, 200))))) {
    await writeFile(join(folder, name), content);
  }
  // Most of these were not learned from.
  const inputs = [...TRICKY, ...texts];
  await writeFile(join(folder, 'texts.json'), JSON.stringify(inputs));

  const theirs = (await python('encode', join(folder, 'tokenizer.json'), join(folder, 'texts.json'))) as Encoded;
  const tokenizer = await loadTokenizer(folder);
  expect(tokenizer.vocabSize).toBe(theirs.size);
  for (const [i, text] of inputs.entries()) {
    const ids = tokenizer.encode(text);
    expect(ids, JSON.stringify(text)).toEqual(theirs.ids[i]);
    expect(tokenizer.decode(ids, { skipSpecialTokens: true }), JSON.stringify(text)).toBe(theirs.decoded[i]);
  }
  find({
    check: `A ${kind} tokenizer that we made: ids and decoded texts`,
    peer: 'tokenizers',
    compared: `${count(inputs.length)} texts`,
    largest: 0,
    allowed: 0,
  });
});
