import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../errors.js';
import { meanInterval, pairedDifferenceInterval } from '../bootstrap.js';
import { classificationMetrics } from '../classification.js';
import { splitGainByLength } from '../length-split.js';
import { summarizeTexts } from '../text-metrics.js';
import { renderHtml } from './html/page.js';
import type { ReportInput } from './input.js';
import { renderMarkdown } from './markdown.js';
import { stageCharts } from './stage-charts.js';

const hostile = `</style></title><script>alert("1")</script><img src=x onerror='a()'>|[x](https://evil.example)\n# \`\u0000`;

const before = [1, 2, 3, 4].map((reward) => ({ reward, length: 10 * reward }));
const after = before.map(({ reward, length }) => ({ reward: reward + 1, length: length + 5 }));
const rewards = (side: typeof before) => side.map(({ reward }) => reward);
const metrics = classificationMetrics([1, 0, 1, 1, 0, 0], [0.9, 0.2, 0.7, 0.4, 0.6, 0.1]);

/** Every part filled; `text` stands wherever text from outside can. */
function fullInput(text: string): ReportInput {
  return {
    title: text,
    subtitle: text,
    createdAt: text,
    expectation: text,
    stages: [
      {
        name: text,
        summary: text,
        seconds: 75,
        alarms: [{ step: 9, name: text, message: text }],
        charts: [
          {
            title: text,
            note: text,
            series: [
              { name: text, points: [{ step: 1, value: 2 }] },
              { name: `${text}2`, points: [{ step: 1, value: 3 }] },
            ],
          },
        ],
      },
    ],
    rewardModel: {
      evaluatedOn: text,
      metrics,
      test: metrics,
      baselines: [{ name: text, description: text, metrics }],
      added: {
        aucWithout: 0.85,
        aucWith: 0.9,
        difference: { estimate: 0.05, low: 0.02, high: 0.08, level: 0.95, rows: 6 },
      },
    },
    reward: {
      models: [
        { name: text, mean: meanInterval(rewards(before)) },
        { name: 'GRPO', mean: meanInterval(rewards(after)) },
      ],
      before: text,
      after: 'GRPO',
      difference: pairedDifferenceInterval(rewards(before), rewards(after)),
      length: splitGainByLength(before, after),
      samples: [
        { model: text, points: before },
        { model: 'GRPO', points: after },
      ],
    },
    generators: [
      { name: text, eosShare: 0.9, ...summarizeTexts([{ text: '今天天气真好' }]) },
      { name: 'GRPO', eosShare: 0.975, ...summarizeTexts([{ text: '老板今天迟到' }]) },
    ],
    generations: [{ prompt: text, texts: [{ model: text, text, reward: 1.5, finishReason: 'length' }] }],
    notes: [text],
    settings: { [text]: { [text]: text } },
    versions: { [text]: text },
    commands: [text],
  };
}

describe('renderHtml', () => {
  it('shows what it was given', async () => {
    const page = await renderHtml(fullInput('中文段子'));
    for (const shown of [
      '中文段子',
      'GRPO ends 97.5 % of its texts by itself',
      '95 % bootstrap interval [1, 1]',
      'Given both (ROC AUC 0.850 together), the model lifts it to 0.900: +0.0500',
      'cut at the limit · reward 1.500',
      'Took 1 min 15 s',
    ]) {
      expect(page.replace(/\s+/g, ' ')).toContain(shown);
    }
    expect(page.match(/<svg /g)).toHaveLength(4);
  });

  it('loads nothing and runs nothing', async () => {
    const page = await renderHtml(fullInput('段子'));
    expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
    expect(page).not.toMatch(/<script|<link|<img|<iframe|@import|src=|url\((?!#)/i);
    expect(page).not.toMatch(/https?:/);
  });

  it('gives pictures ids of their own', async () => {
    const ids = Array.from((await renderHtml(fullInput('段子'))).matchAll(/ id="([^"]+)"/g), ([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('writes the same page again', async () => {
    expect(await renderHtml(fullInput('段子'))).toBe(await renderHtml(fullInput('段子')));
  });

  it('escapes hostile text wherever text can stand', async () => {
    const page = await renderHtml(fullInput(hostile));
    expect(page).not.toMatch(/<script|<img/i);
    expect(page.match(/<\/style>/g)).toHaveLength(1);
    expect(page.match(/<\/title>/g)).toHaveLength(1);
    expect(page).not.toContain('\u0000');
    expect(page).toContain('␀');
  });

  it('takes dollar signs in a title as they are', async () => {
    const page = await renderHtml({ title: 't', stages: stage([{ step: 1, value: 2 }], "$& $' $1") });
    expect(page).toContain('aria-label="$&#38; $&#39; $1"');
  });

  it('lets no text open a tag or leave an attribute', async () => {
    const shape = tagsOf(await renderHtml(fullInput('x')));
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: fc.constantFrom('<', '>', '"', "'", '&', '`', 'a', '/', '=', '好'), maxLength: 12 }),
        async (text) => {
          expect(tagsOf(await renderHtml(fullInput(`x${text}`)))).toEqual(shape);
        },
      ),
      { numRuns: 8 },
    );
  });

  it('leaves out what it was not given', async () => {
    const page = await renderHtml({ title: '空' });
    expect(page).toContain('<h1>空</h1>');
    expect(page).not.toMatch(/<h2|<nav|<svg|class="card"/);
  });

  it('says so where a stage or a curve recorded nothing', async () => {
    const page = await renderHtml({
      title: 't',
      stages: [{ name: 'sft' }, { name: 'rm', charts: [{ title: 'Loss', series: [{ name: 'loss', points: [] }] }] }],
    });
    expect(page).toContain('No metrics were recorded.');
    expect(page).toContain('No values were recorded.');
    expect(page).not.toContain('<svg');
  });

  it('shows the alarms of a stage, and nothing where none spoke', async () => {
    const loud = {
      title: 't',
      stages: [{ name: 'grpo', alarms: [{ step: 17, name: 'variety', message: 'Variety is lost.' }] }],
    };
    expect(await renderHtml(loud)).toMatch(/Alarms<\/b>\s*<ul>\s*<li>Step 17: Variety is lost\.<\/li>/);
    expect(renderMarkdown(loud)).toContain('**Alarms**\n\n- Step 17: Variety is lost.');
    const quiet = { title: 't', stages: [{ name: 'grpo' }] };
    expect(await renderHtml(quiet)).not.toContain('Alarms</b>');
    expect(renderMarkdown(quiet)).not.toContain('Alarms');
  });

  it('draws one point as a dot and averages long curves', async () => {
    const curve = (count: number) => ({
      title: 't',
      stages: stage(Array.from({ length: count }, (_, i) => ({ step: i * 10, value: Math.sin(i) }))),
    });
    const dot = await renderHtml(curve(1));
    const long = await renderHtml(curve(20_000));
    expect(dot).toContain('fill="var(--s1)"');
    expect(dot).not.toContain('moving average');
    expect(long).toContain('moving average');
    expect(long.length).toBeLessThan(60_000);
    expect(dot + long).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('copes with a constant curve', async () => {
    const page = await renderHtml({ title: 't', stages: stage([1, 2, 3].map((step) => ({ step, value: 0 }))) });
    expect(page).not.toMatch(/NaN|Infinity/);
  });

  it('names the wrong field', async () => {
    const wrong = { title: 't', stages: stage([{ step: 1, value: NaN }]) };
    await expect(renderHtml(wrong)).rejects.toThrow(UserError);
    await expect(renderHtml(wrong)).rejects.toMatchObject({ where: 'stages.0.charts.0.series.0.points.0.value' });
  });
});

describe('renderMarkdown', () => {
  it('holds the sentences, the tables and the texts', () => {
    const text = renderMarkdown(fullInput('段子'));
    expect(text).toContain('# 段子');
    expect(text).toContain('| 段子: 段子 | 0.667 |');
    expect(text).toContain('| not humorous | 2 | 1 |');
    expect(text).toContain('| 段子 | 1.500 | 段子 (cut at the limit) |');
    expect(text).not.toMatch(/undefined|NaN/);
  });

  it('escapes hostile text', () => {
    const text = renderMarkdown({ ...fullInput(hostile), commands: [] });
    expect(text).not.toMatch(/(?<!\\)<(script|img)/);
    expect(text).not.toMatch(/(?<!\\)\[x(?<!\\)\]/);
    expect(text).not.toMatch(/https:\/\//);
    expect(text).not.toContain('\u0000');
  });

  it('keeps every table rectangular', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('|', '\\', '\n', '`', 'a', '好', ' '), maxLength: 10 }),
        (noise) => {
          const rows = renderMarkdown({ ...fullInput(`x${noise}`), commands: [] })
            .split('\n')
            .filter((line) => line.startsWith('|'));
          const cells = rows.map((line) => line.replace(/\\./g, '').split('|').length);
          rows.forEach((line, i) => {
            if (/^\| -/.test(line)) expect(cells[i]).toBe(cells[i - 1]);
            else if (i > 0 && !/^\| -/.test(rows[i + 1] ?? '')) expect(cells[i]).toBe(cells[i - 1]);
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  it('fences commands that hold back ticks', () => {
    expect(renderMarkdown({ title: 't', commands: ['echo ```'] })).toContain('````sh\necho ```\n````');
  });

  it('leaves out what it was not given', () => {
    expect(renderMarkdown({ title: '空' })).toBe('# 空\n');
  });
});

describe('stageCharts', () => {
  it('groups known metrics and leaves out the rest', () => {
    const points = [{ step: 1, value: 1 }];
    const charts = stageCharts({ loss: points, eval_loss: points, kl: points, unheard_of: points });
    expect(charts.map(({ title, series }) => [title, series.map(({ name }) => name)])).toEqual([
      ['Loss', ['training', 'validation']],
      ['KL to the reference', ['KL']],
    ]);
  });
});

function stage(points: { step: number; value: number }[], title = 'Loss'): NonNullable<ReportInput['stages']> {
  return [{ name: 'sft', charts: [{ title, series: [{ name: 'loss', points }] }] }];
}

/** Names of all tags in order, and of their attributes. */
function tagsOf(page: string): string[] {
  return Array.from(
    page.matchAll(/<(\/?[a-z][^\s>]*)((?:\s+[^\s=>]+(?:="[^"]*")?)*)\s*\/?>/gi),
    ([, tag, attributes]) =>
      [tag, ...Array.from(attributes!.matchAll(/([^\s=]+)="[^"]*"/g), ([, name]) => name)].join(' '),
  );
}
