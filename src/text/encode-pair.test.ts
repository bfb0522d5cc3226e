import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodePair } from './encode-pair.js';
import { Tokenizer } from './tokenizer.js';
import { trainByteLevelBpe } from './train-bpe.js';

const TEXTS = [
  '今天天气真好，猫排队买包子。',
  '标题：猫排队\n笑话：今天天气真好',
  '你好你好 hello hello world world',
  '今天 今天 今天',
];
const files = trainByteLevelBpe([...TEXTS, ...TEXTS], { vocabSize: 360, specialTokens: ['<eos>', '<pad>'] });
const tokenizer = new Tokenizer(files.tokenizer, files.config);
const eosId = tokenizer.requireSpecial('eos', 'test');

const text = fc
  .array(fc.constantFrom('今天', '天气', '猫', '排队', ' ', '\n', 'hel', 'lo', '：', '😂', 'é', 'e\u0301'), {
    maxLength: 12,
  })
  .map((parts) => parts.join(''));

describe('encodePair', () => {
  it('ends every sample with a learned EOS, within the limit, and never cuts the prompt', () => {
    fc.assert(
      fc.property(text, text, fc.integer({ min: 2, max: 60 }), (prompt, completion, maxLength) => {
        const whole = tokenizer.encode(prompt + completion);
        const alone = tokenizer.encode(prompt);
        const options = { eosId, maxLength };
        if (
          whole.length >= maxLength &&
          alone.length >= maxLength - 1 &&
          whole.slice(0, maxLength - 1).every((id, i) => id === alone[i])
        ) {
          expect(() => encodePair(tokenizer, prompt, completion, options)).toThrow(/leaves no room/u);
          return;
        }
        const { inputIds, completionMask, truncated } = encodePair(tokenizer, prompt, completion, options);
        expect(inputIds.length).toBeLessThanOrEqual(maxLength);
        expect(completionMask).toHaveLength(inputIds.length);
        expect(inputIds.at(-1)).toBe(eosId);
        expect(completionMask.at(-1)).toBe(1);
        expect(truncated).toBe(whole.length + 1 > maxLength);
        expect(inputIds.slice(0, -1)).toEqual(whole.slice(0, inputIds.length - 1));
        const start = completionMask.indexOf(1);
        expect(completionMask.every((bit, i) => bit === (i < start ? 0 : 1))).toBe(true);
        expect(inputIds.slice(0, start)).toEqual(alone.slice(0, start));
        expect(truncated && start === inputIds.length - 1).toBe(false);
      }),
      { numRuns: 300 },
    );
  });

  it('learns a token that reaches over the boundary', () => {
    const [id] = tokenizer.encode('今天');
    expect(tokenizer.encode('今天')).toHaveLength(1);
    expect(encodePair(tokenizer, '今', '天', { eosId, maxLength: 8 })).toEqual({
      inputIds: [id, eosId],
      completionMask: [1, 1],
      truncated: false,
    });
  });

  it('does not double an EOS that the completion ends with', () => {
    const once = encodePair(tokenizer, '猫：', '排队', { eosId, maxLength: 64 });
    expect(encodePair(tokenizer, '猫：', '排队<eos>', { eosId, maxLength: 64 })).toEqual(once);
    expect(encodePair(tokenizer, '猫<eos>', '', { eosId, maxLength: 64 }).inputIds.slice(-2)).toEqual([eosId, eosId]);
  });

  it('names the place of a text that does not fit', () => {
    const options = { eosId, maxLength: 3, where: 'data.csv:7' };
    const thrown = (run: () => unknown): unknown => {
      try {
        return run();
      } catch (error) {
        return error;
      }
    };
    expect(thrown(() => encodePair(tokenizer, '猫排队买包子。', '好', options))).toMatchObject({
      code: 'text.prompt-too-long',
      where: 'data.csv:7',
      exitCode: 2,
    });
    expect(
      thrown(() => encodePair(tokenizer, '', '猫排队买包子。', { ...options, truncation: 'refuse' })),
    ).toMatchObject({
      code: 'text.sample-too-long',
      where: 'data.csv:7',
    });
  });
});
