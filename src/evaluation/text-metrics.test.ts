import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { characters } from '../text/characters.js';
import { garbageReason } from '../text/garbage.js';
import { bothWordsShare, copiedShares, distinctN, meanLength, selfSimilarity, summarizeTexts } from './text-metrics.js';

const han = fc
  .array(fc.constantFrom(...characters('今天笑话真好老板迟到哈😀')), { maxLength: 30 })
  .map((points) => points.join(''));

describe('distinctN and meanLength', () => {
  it('count code points, not UTF-16 units', () => {
    expect(meanLength(['😀好', ''])).toBe(1);
    expect(distinctN(['😀😀'], 1)).toBe(0.5);
  });

  it('stay in [0, 1] and shrink when a text is repeated', () => {
    fc.assert(
      fc.property(fc.array(han, { maxLength: 6 }), fc.integer({ min: 1, max: 3 }), (texts, n) => {
        const once = distinctN(texts, n);
        expect(once).toBeGreaterThanOrEqual(0);
        expect(once).toBeLessThanOrEqual(1);
        expect(distinctN([...texts, ...texts], n)).toBeCloseTo(once / 2, 12);
      }),
    );
  });
});

describe('bothWordsShare', () => {
  it('asks for every word, of prompts that gave words only', () => {
    const generated = [
      { text: '老板说堵车', words: ['老板', '堵车'] },
      { text: '老板没来', words: ['老板', '堵车'] },
      { text: '没有词语' },
    ];
    expect(bothWordsShare(generated)).toBe(0.5);
    expect(bothWordsShare([{ text: '没有词语' }])).toBeNull();
  });
});

describe('selfSimilarity', () => {
  it('is 1 for copies, 0 for texts without a common 3-gram, null for one text', () => {
    expect(selfSimilarity(['今天天气真好', '今天天气真好', '今天天气真好'])).toBe(1);
    expect(selfSimilarity(['今天天气真好', '老板为什么迟到'])).toBe(0);
    expect(selfSimilarity(['今天'])).toBeNull();
    expect(selfSimilarity(['', ''])).toBe(1);
    expect(selfSimilarity(['今天', '明天'])).toBe(0);
  });

  it('draws the same sample for the same seed', () => {
    const texts = Array.from({ length: 60 }, (_, i) => `今天第${i}个笑话和第${i % 7}个一样好笑`);
    const options = { sampleSize: 10, seed: 3 };
    expect(selfSimilarity(texts, options)).toBe(selfSimilarity(texts, options));
    expect(selfSimilarity(texts, options)).not.toBe(selfSimilarity(texts, { ...options, seed: 4 }));
  });
});

describe('copiedShares', () => {
  it('measures the stretch that a training text holds', () => {
    const training = ['从前有座山山里有座庙庙里有个老和尚'];
    expect(copiedShares(['从前有座山山里有座庙'], training)).toEqual([1]);
    expect(copiedShares(['我说从前有座山山里有哈哈哈哈哈哈'], training)[0]).toBe(8 / 16);
    expect(copiedShares(['今天天气真好我们去公园', ''], training)).toEqual([0, 0]);
  });

  it('counts a short text as copied when a training text holds it whole', () => {
    expect(copiedShares(['有座山', '有座桥'], ['从前有座山'])).toEqual([1, 0]);
  });

  it('is 1 for every training text itself', () => {
    fc.assert(
      fc.property(
        fc.array(
          han.filter((text) => text !== ''),
          { minLength: 1, maxLength: 5 },
        ),
        (texts) => {
          expect(copiedShares(texts, texts)).toEqual(texts.map(() => 1));
        },
      ),
    );
  });
});

describe('garbageReason', () => {
  it.each([
    ['', 'empty'],
    [' \n　', 'empty'],
    ['今天\uFFFD真好', 'broken-characters'],
    ['今天\u0000真好', 'broken-characters'],
    ['今天\uD83D真好', 'broken-characters'],
    ['the quick brown fox', 'hardly-chinese'],
    ['。。。！！', 'hardly-chinese'],
    ['的'.repeat(16), 'repetition'],
    [`老板${'我不知道，'.repeat(4)}`, 'repetition'],
  ])('%j is %s', (text, reason) => {
    expect(garbageReason(text)).toBe(reason);
  });

  it.each([
    '老板：“你怎么又迟到了？”\n员工：“因为您总是早到。”',
    '哈哈哈哈哈哈哈哈',
    'AI 写的笑话，只有 AI 笑了……',
    '他只有一个爱好：钱，钱，钱。',
  ])('%j passes', (text) => {
    expect(garbageReason(text)).toBeNull();
  });
});

describe('summarizeTexts', () => {
  it('leaves open what was not given', () => {
    const summary = summarizeTexts([{ text: '今天天气真好' }]);
    expect(summary).toMatchObject({ texts: 1, meanLength: 6, garbageShare: 0, selfSimilarity: null });
    expect(summary.copiedShare).toBeNull();
    expect(summary.bothWordsShare).toBeNull();
  });

  it('summarises no texts at all', () => {
    expect(summarizeTexts([], { training: [] })).toMatchObject({ texts: 0, meanLength: 0, copiedShare: 0 });
  });
});
