import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildWordPiece } from './build-word-piece.js';
import { learnMerges } from './learn-merges.js';
import { Tokenizer } from './tokenizer.js';
import { trainByteLevelBpe } from './train-bpe.js';

const TEXTS = [
  '猫说：我先来的。',
  '今天天气真好，今天猫排队买包子！',
  "I'm here, we'll see 2024",
  '老板：不行。老板：行。',
  '今天',
];
const SPECIAL = ['<|endoftext|>', '<|im_end|>'];
const anyText = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 20 }),
  fc
    .array(fc.constantFrom('今天', '猫', '：', ' ', '\n', 'é', 'e\u0301', '😂', '𠮷', 'A', '１'), { maxLength: 20 })
    .map((a) => a.join('')),
);

/** The same by the book: count all pairs anew before each merge. */
function learnSlowly(counts: ReadonlyMap<string, number>, alphabet: readonly string[], size: number, minCount: number) {
  const tokens = [...alphabet];
  const merges: [string, string][] = [];
  let words = Array.from(counts, ([word, count]) => ({ parts: Array.from(word, (c) => tokens.indexOf(c)), count }));
  while (tokens.length < size) {
    const pairs = new Map<string, { left: number; right: number; count: number }>();
    for (const { parts, count } of words) {
      for (let i = 1; i < parts.length; i++) {
        const [left, right] = [parts[i - 1]!, parts[i]!];
        const pair = pairs.get(`${left} ${right}`) ?? { left, right, count: 0 };
        pair.count += count;
        pairs.set(`${left} ${right}`, pair);
      }
    }
    const [best] = [...pairs.values()].sort((a, b) => b.count - a.count || a.left - b.left || a.right - b.right);
    if (best === undefined || best.count < minCount) break;
    const text = tokens[best.left]! + tokens[best.right]!;
    if (!tokens.includes(text)) tokens.push(text);
    const merged = tokens.indexOf(text);
    const merge: [string, string] = [tokens[best.left]!, tokens[best.right]!];
    if (!merges.some(([left, right]) => left === merge[0] && right === merge[1])) merges.push(merge);
    words = words.map(({ parts, count }) => {
      const result: number[] = [];
      for (let i = 0; i < parts.length; i++) {
        if (parts[i] === best.left && parts[i + 1] === best.right) {
          result.push(merged);
          i++;
        } else result.push(parts[i]!);
      }
      return { parts: result, count };
    });
  }
  return { tokens, merges };
}

describe('learnMerges', () => {
  it('equals counting all pairs anew before each merge', () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 12 });
    const counts = fc.uniqueArray(fc.tuple(word, fc.integer({ min: 1, max: 5 })), {
      maxLength: 12,
      selector: ([w]) => w,
    });
    fc.assert(
      fc.property(counts, fc.integer({ min: 3, max: 30 }), fc.integer({ min: 1, max: 4 }), (list, size, minCount) => {
        const alphabet = ['a', 'b', 'c'];
        const words = new Map(list);
        expect(learnMerges(words, alphabet, size, minCount)).toEqual(learnSlowly(words, alphabet, size, minCount));
      }),
      { numRuns: 300 },
    );
  });
});

describe('trainByteLevelBpe', () => {
  const files = trainByteLevelBpe(TEXTS, {
    vocabSize: 300,
    specialTokens: SPECIAL,
    eosToken: '<|im_end|>',
    padToken: '<|endoftext|>',
  });
  const tokenizer = new Tokenizer(files.tokenizer, files.config);

  it('puts bytes, merges and special tokens in this order', () => {
    expect(tokenizer.tokenOf(0)).toBe('!');
    expect(tokenizer.idOf('Ń')).toBe(255);
    expect(tokenizer.vocabSize).toBeLessThanOrEqual(300);
    expect(tokenizer.special).toEqual({ pad: tokenizer.vocabSize - 2, eos: tokenizer.vocabSize - 1 });
    expect(tokenizer.encode('今天')).toHaveLength(1);
    expect(tokenizer.decode([tokenizer.encode('今天')[0]!])).toBe('今天');
  });

  it('gives back any text, in NFC', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text.normalize('NFC'));
      }),
      { numRuns: 300 },
    );
  });

  it('depends on the texts, not on their order', () => {
    const options = { vocabSize: 300, specialTokens: SPECIAL };
    expect(trainByteLevelBpe([...TEXTS].reverse(), options)).toEqual(trainByteLevelBpe(TEXTS, options));
    expect(trainByteLevelBpe(['狗狗'], options)).not.toEqual(trainByteLevelBpe(TEXTS, options));
  });

  it('refuses too small a vocabulary and unknown roles', () => {
    expect(() => trainByteLevelBpe(TEXTS, { vocabSize: 257, specialTokens: SPECIAL })).toThrow(/no room/u);
    expect(() => trainByteLevelBpe(TEXTS, { vocabSize: 300, specialTokens: [] })).toThrow(/no special token/u);
    expect(() => trainByteLevelBpe(TEXTS, { vocabSize: 300, specialTokens: SPECIAL, eosToken: '</s>' })).toThrow(
      /not one of/u,
    );
  });

  it('takes seconds for as much text as the published data has', () => {
    // About 2 MB of text in which words repeat as rarely as in real titles and jokes.
    const characters = Array.from({ length: 1500 }, (_, i) => String.fromCodePoint(0x4e00 + i));
    let state = 1;
    const draw = (): number => (state = (state * 48271) % 2147483647) / 2147483647;
    const texts = Array.from({ length: 15_000 }, () =>
      Array.from({ length: 45 }, () => (draw() < 0.1 ? '，' : characters[Math.floor(1500 * draw() ** 3)]!)).join(''),
    );
    const start = performance.now();
    const { tokenizer: json } = trainByteLevelBpe(texts, { vocabSize: 6000, specialTokens: SPECIAL });
    expect(performance.now() - start).toBeLessThan(60_000);
    expect(Object.keys(json.model.vocab)).toHaveLength(6000 - SPECIAL.length);
  });
});

describe('buildWordPiece', () => {
  const files = buildWordPiece(TEXTS, { vocabSize: 140 });
  const tokenizer = new Tokenizer(files.tokenizer, files.config);

  it('has the special tokens, ASCII, and characters by frequency', () => {
    const vocabulary = files.vocabText?.trimEnd().split('\n') ?? [];
    expect(vocabulary.slice(0, 7)).toEqual(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '!', '"']);
    expect(vocabulary).toContain('##z');
    expect(vocabulary).not.toContain('A');
    expect(vocabulary).toHaveLength(tokenizer.vocabSize);
    expect(vocabulary.map((token) => tokenizer.idOf(token))).toEqual(vocabulary.map((_, id) => id));
    expect(vocabulary.indexOf('天')).toBeLessThan(vocabulary.indexOf('猫'));
    expect(buildWordPiece(TEXTS, { vocabSize: 140, minCount: 4 }).vocabText).not.toContain('猫');
    expect(buildWordPiece([...TEXTS].reverse(), { vocabSize: 140 })).toEqual(files);
  });

  it('gives back known characters, one token each, and reads any text', () => {
    const known = fc.array(fc.constantFrom('今', '天', '猫', '：', '！'), { maxLength: 20 });
    fc.assert(
      fc.property(known, (characters) => {
        const ids = tokenizer.encode(characters.join(''));
        expect(ids).toHaveLength(characters.length + 2);
        expect(tokenizer.decode(ids, { skipSpecialTokens: true }).replaceAll(' ', '')).toBe(characters.join(''));
      }),
    );
    fc.assert(
      fc.property(anyText, (text) => {
        const ids = tokenizer.encode(text);
        expect(ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.vocabSize)).toBe(true);
        expect([ids[0], ids.at(-1)]).toEqual([tokenizer.special.cls, tokenizer.special.sep]);
      }),
    );
  });

  it('refuses too small a vocabulary', () => {
    expect(() => buildWordPiece(TEXTS, { vocabSize: 50 })).toThrow(/no room/u);
  });
});
