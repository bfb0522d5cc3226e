import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { checkTemplates, DEFAULT_TEMPLATES, placesOf, promptsOf, renderPrompt } from './templates.js';

const COLUMNS = ['headline', 'word1', 'word2', 'joke'];

function thrown(run: () => unknown): UserError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    return error as UserError;
  }
  throw new Error('nothing was thrown');
}

describe('templates', () => {
  it('have the published pair as default', () => {
    const fields = { headline: '猫排队', word1: '雨伞', word2: '键盘' };
    expect(renderPrompt(DEFAULT_TEMPLATES.headline, fields)).toBe(
      '请根据以下新闻标题，创作一段幽默的中文文本：\n\n标题：猫排队\n\n幽默文本：',
    );
    expect(renderPrompt(DEFAULT_TEMPLATES.words, fields)).toBe(
      '请使用以下两个词语，创作一段幽默的中文文本：\n\n词语：雨伞、键盘\n\n幽默文本：',
    );
    expect(() => {
      checkTemplates(DEFAULT_TEMPLATES, COLUMNS);
    }).not.toThrow();
  });

  it('put values in as they are, braces and dollar signs too', () => {
    expect(placesOf('{a}{ b }{a}')).toEqual(['a', 'b']);
    expect(renderPrompt('{a}-{ b }', { a: '{b}', b: '$&' })).toBe('{b}-$&');
  });

  it('are refused with the nearest column when a place is unknown', () => {
    const error = thrown(() => {
      checkTemplates({ mine: '标题：{headlin}' }, COLUMNS);
    });
    expect(error).toMatchObject({ code: 'template.unknown-place', where: 'data.templates.mine', exitCode: 2 });
    expect(error.fix).toContain('Did you mean "headline"?');
    expect(thrown(() => renderPrompt('{word3}', { word1: '', word2: '' })).code).toBe('template.unknown-place');
    expect(thrown(() => renderPrompt('{constructor}', {})).code).toBe('template.unknown-place');
  });

  it('are refused when there is none, or one without a place', () => {
    expect(
      thrown(() => {
        checkTemplates({}, COLUMNS);
      }).code,
    ).toBe('template.none');
    expect(
      thrown(() => {
        checkTemplates({ mine: '写笑话：' }, COLUMNS);
      }).code,
    ).toBe('template.no-place');
  });

  it('make a prompt only where the row has all their values', () => {
    const row = (fields: Record<string, string>) => ({ file: 'a.csv', line: 7, fields });
    const names = (fields: Record<string, string>) => promptsOf(row(fields), DEFAULT_TEMPLATES).map((p) => p.template);
    expect(names({ headline: '猫', word1: 'a', word2: 'b' })).toEqual(['headline', 'words']);
    expect(names({ headline: '猫', word1: '', word2: 'b' })).toEqual(['headline']);
    expect(names({ word1: 'a', word2: 'b' })).toEqual(['words']);
    expect(thrown(() => names({ headline: ' ', word1: 'a' }))).toMatchObject({
      code: 'data.no-prompt',
      where: 'a.csv:7',
    });
  });
});
