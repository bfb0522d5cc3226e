import { describe, expect, it } from 'vitest';
import { CopyIndex } from '../../text/copy-index.js';
import type { RewardRow } from '../reward.js';
import { endsByItself } from './ending.js';
import { lengthBand } from './length-band.js';
import { novelty } from './novelty.js';
import { readableChinese } from './readable.js';
import { noRepetition } from './repetition.js';
import { usesWords } from './words.js';

const row = (completion: string, more: Partial<RewardRow> = {}): RewardRow => ({
  prompt: '词语：雨伞、键盘\n',
  completion,
  completionIds: [1, 2],
  finishReason: 'stop',
  template: 'words',
  words: ['雨伞', '键盘'],
  fields: {},
  ...more,
});
const joke = '老板送我一把雨伞，说加班的时候可以挡一挡键盘上的眼泪。';

describe('usesWords', () => {
  it('is the share of the words, and null where none are asked for', () => {
    const rows = [row(joke), row('雨伞坏了'), row('今天天气好'), row(''), row(joke, { words: [] })];
    expect(usesWords(rows)).toEqual([1, 0.5, 0, 0, null]);
  });
});

describe('lengthBand', () => {
  it('is 1 within, falls to 0 at an empty text and at twice the most', () => {
    const texts = [
      '',
      '　',
      '字'.repeat(5),
      '字'.repeat(10),
      '字'.repeat(20),
      '字'.repeat(30),
      '字'.repeat(40),
      '😀'.repeat(10),
    ];
    expect(lengthBand({ min: 10, max: 20 })(texts.map((text) => row(text)))).toEqual([0, 0, 0.5, 1, 1, 0.5, 0, 1]);
  });

  it('takes an empty text where no fewest is asked for', () => {
    expect(lengthBand({ min: 0, max: 20 })([row('')])).toEqual([1]);
  });
});

describe('noRepetition', () => {
  it('is 1 for a text that repeats nothing and near 0 for one that is stuck', () => {
    const [fresh, stuck, short, empty] = noRepetition([row(joke), row('哈'.repeat(102)), row('哈哈'), row('')]);
    expect([fresh, short, empty]).toEqual([1, 1, 1]);
    expect(stuck).toBeCloseTo(0.01);
  });
});

describe('novelty', () => {
  it('is 0 for a copy, 1 for what nobody wrote, between for a part', () => {
    const score = novelty(new CopyIndex([joke]));
    const half = `${joke.slice(0, 14)}后来我就辞职回家去种田了啦`;
    expect(score([row(joke), row('猫在天上飞来飞去不肯下来吃饭'), row('')])).toEqual([0, 1, 1]);
    expect(score([row(half)])[0]).toBeCloseTo(1 - 14 / 27);
  });
});

describe('readableChinese', () => {
  it('is 0 for what the report calls garbage', () => {
    const texts = [joke, '', 'I am a joke in English', '哈哈哈哈'.repeat(9), '半个\ufffd字'];
    expect(readableChinese(texts.map((text) => row(text)))).toEqual([1, 0, 0, 0, 0]);
  });
});

describe('endsByItself', () => {
  it('is 1 for a text that ended, not for one that was cut or is empty', () => {
    expect(endsByItself([row(joke), row(joke, { finishReason: 'length' }), row(' ')])).toEqual([1, 0, 0]);
  });
});
