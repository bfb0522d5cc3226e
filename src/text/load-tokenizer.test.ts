import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildWordPiece } from './build-word-piece.js';
import { loadTokenizer } from './load-tokenizer.js';
import { assertTokenizerFits, Tokenizer } from './tokenizer.js';
import { serializeTokenizer, type TokenizerFiles } from './tokenizer-files.js';
import { trainByteLevelBpe } from './train-bpe.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'duanzi-tokenizer-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

async function save(files: TokenizerFiles, ...names: string[]): Promise<void> {
  for (const [name, content] of Object.entries(serializeTokenizer(files))) {
    if (names.length === 0 || names.includes(name)) await writeFile(join(dir, name), content);
  }
}

const bpe = trainByteLevelBpe(['猫猫'], { vocabSize: 260, specialTokens: ['<|im_end|>', '<|endoftext|>'] });

describe('loadTokenizer', () => {
  it('reads what was saved', async () => {
    await save(bpe);
    const tokenizer = await loadTokenizer(dir);
    expect(tokenizer.vocabSize).toBe(260);
    expect(tokenizer.special).toEqual({ eos: 258, pad: 259 });
    expect(tokenizer.encode('猫<|im_end|>')).toEqual(new Tokenizer(bpe.tokenizer, bpe.config).encode('猫<|im_end|>'));
    expect(tokenizer.tokenOf(258)).toBe('<|im_end|>');
    expect(tokenizer.tokenOf(260)).toBeUndefined();
    expect(tokenizer.idOf('nothing')).toBeUndefined();
  });

  it('does without a config, takes special tokens as objects, and finds them in the older file', async () => {
    await save(bpe, 'tokenizer.json');
    const bare = await loadTokenizer(dir);
    expect(bare.special).toEqual({});
    expect(() => bare.requireSpecial('eos', dir)).toThrow(/no eos token/u);
    await writeFile(join(dir, 'special_tokens_map.json'), '{"eos_token": {"content": "<|im_end|>", "lstrip": false}}');
    expect((await loadTokenizer(dir)).special).toEqual({ eos: 258 });
  });

  it('reads a BERT folder that has only vocab.txt', async () => {
    const files = buildWordPiece(['猫排队'], { vocabSize: 200 });
    await save(files, 'vocab.txt', 'tokenizer_config.json');
    const tokenizer = await loadTokenizer(dir);
    expect(tokenizer.special).toEqual({ pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 });
    expect(tokenizer.encode('猫 Cat')).toEqual(new Tokenizer(files.tokenizer, files.config).encode('猫 Cat'));
    await writeFile(join(dir, 'vocab.txt'), '猫\n狗\n');
    await expect(loadTokenizer(dir)).rejects.toMatchObject({ code: 'tokenizer.broken-file', exitCode: 2 });
  });

  it('says what is missing or broken', async () => {
    await expect(loadTokenizer(dir)).rejects.toMatchObject({ code: 'tokenizer.missing-file', where: dir, exitCode: 2 });
    const file = join(dir, 'tokenizer.json');
    for (const content of [
      '{"model": ',
      '[]',
      '{"model": {"vocab": {"a": "b"}}}',
      '{"model": {"type": "Magic", "vocab": {}}}',
      JSON.stringify({
        ...bpe.tokenizer,
        normalizer: { type: 'Sequence', normalizers: [{ type: 'Replace', pattern: {}, content: '' }] },
      }),
      JSON.stringify({
        ...bpe.tokenizer,
        pre_tokenizer: { type: 'Split', pattern: { Glob: '*' }, behavior: 'Isolated' },
      }),
    ]) {
      await writeFile(file, content);
      await expect(loadTokenizer(dir)).rejects.toMatchObject({
        code: 'tokenizer.broken-file',
        where: file,
        exitCode: 2,
      });
    }
  });
});

describe('a tokenizer', () => {
  const tokenizer = new Tokenizer(bpe.tokenizer, bpe.config);

  it('must fit the model', () => {
    expect(() => {
      assertTokenizerFits(tokenizer, 260, dir);
      assertTokenizerFits(tokenizer, 300, dir);
    }).not.toThrow();
    expect(() => {
      assertTokenizerFits(tokenizer, 259, dir);
    }).toThrow(/ids go up to 259.*259 embeddings/u);
  });

  it('decodes ids that a larger model makes up as nothing', () => {
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.decode([260, 999])).toBe('');
    expect(tokenizer.decode([999, ...tokenizer.encode('猫'), 258, 260])).toBe('猫<|im_end|>');
    expect(tokenizer.decode([...tokenizer.encode('猫'), 258], { skipSpecialTokens: true })).toBe('猫');
  });

  it('may be of whole words, with or without an unknown one', () => {
    const wordLevel = (unk_token: string | null) =>
      new Tokenizer(
        {
          added_tokens: [{ id: 0, content: '<eos>', special: true }],
          model: { type: 'WordLevel', vocab: { '<eos>': 0, '<unk>': 1, t2: 2, t3: 3 }, unk_token },
          normalizer: null,
          pre_tokenizer: { type: 'WhitespaceSplit' },
          post_processor: null,
          decoder: null,
        },
        { eos_token: '<eos>' },
      );
    expect(wordLevel('<unk>').encode('t3 t9 t2<eos>')).toEqual([3, 1, 2, 0]);
    expect(wordLevel(null).encode('t3 t9 t2<eos>')).toEqual([3, 2, 0]);
    expect(wordLevel('<unk>').decode([3, 1, 2, 0], { skipSpecialTokens: true })).toBe('t3 <unk> t2');
    expect(wordLevel('<unk>').special).toEqual({ eos: 0, unk: 1 });
  });

  it('makes every ideograph a word, those outside the Basic Multilingual Plane too', () => {
    const { tokenizer: json, config } = buildWordPiece(['𠮷猫 ab'], { vocabSize: 200 });
    const wordPiece = new Tokenizer(json, config);
    const tokens = wordPiece.encode('a𠮷b猫', { addSpecialTokens: false }).map((id) => wordPiece.tokenOf(id));
    expect(tokens).toEqual(['a', '𠮷', 'b', '猫']);
    expect(wordPiece.encode('猫猫猫', { maxLength: 4 })).toHaveLength(4);
    expect(wordPiece.encode('猫猫猫', { addSpecialTokens: false, maxLength: 2 })).toHaveLength(2);
  });
});
