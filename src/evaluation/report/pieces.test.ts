import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatNumber, formatPercent, formatSeconds, formatSigned } from './format.js';
import { escapeHtml, html } from './markup.js';
import { readMetricSeries } from './metric-series.js';
import { curvesOption } from './charts.js';
import { distinguishable, smooth, sparkline, thin } from './series.js';
import { renderSvg } from './svg.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'metrics-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function metricsFile(content: string): Promise<string> {
  const path = join(folder, 'metrics.jsonl');
  await writeFile(path, content);
  return path;
}

describe('readMetricSeries', () => {
  it('gives one series a metric, in order of steps; a later line of a step counts, a gap stays a gap', async () => {
    const path = await metricsFile(
      [
        '{"step":20,"epoch":0.2,"loss":9}',
        '{"step":10,"epoch":0.1,"loss":3,"kl":"NaN"}',
        '{"step":20,"epoch":0.2,"loss":1,"eval_loss":1.5}',
        '{"step":30,"ep',
      ].join('\n'),
    );
    expect(readMetricSeries(path)).toEqual({
      loss: [
        { step: 10, value: 3 },
        { step: 20, value: 1 },
      ],
      eval_loss: [{ step: 20, value: 1.5 }],
    });
  });

  it('is empty for an empty or missing file', async () => {
    expect(readMetricSeries(await metricsFile(''))).toEqual({});
    expect(readMetricSeries(join(folder, 'none.jsonl'))).toEqual({});
  });
});

describe('series', () => {
  const points = fc
    .array(fc.double({ min: -9, max: 9, noNaN: true }), { minLength: 1, maxLength: 300 })
    .map((values) => values.map((value, step) => ({ step, value })));

  it('thins to the limit, in order, within the range', () => {
    fc.assert(
      fc.property(points, fc.integer({ min: 1, max: 50 }), (all, limit) => {
        const few = thin(all, limit);
        expect(few.length).toBeLessThanOrEqual(limit);
        expect(few.map(({ step }) => step)).toEqual(few.map(({ step }) => step).sort((a, b) => a - b));
        expect(Math.max(...few.map(({ value }) => value))).toBeLessThanOrEqual(
          Math.max(...all.map(({ value }) => value)) + 1e-9,
        );
      }),
    );
  });

  it('smooths without moving a straight middle or a constant', () => {
    const line = Array.from({ length: 21 }, (_, step) => ({ step, value: 3 * step }));
    expect(smooth(line, 5).slice(2, -2)).toEqual(line.slice(2, -2));
    expect(smooth([{ step: 1, value: 4 }], 9)).toEqual([{ step: 1, value: 4 }]);
  });

  it('draws sparklines', () => {
    expect(sparkline([0, 1, 2, 7].map((value, step) => ({ step, value })))).toBe('▁▂▃█');
    expect(sparkline([{ step: 0, value: 5 }])).toBe('▄');
    expect(sparkline([])).toBe('');
  });
});

describe('format', () => {
  it.each([
    [0, '0'],
    [1234567, '1,234,567'],
    [1234.5, '1,235'],
    [12.345, '12.35'],
    [0.12345, '0.123'],
    [0.01234, '0.0123'],
    [2e-5, '2e−5'],
    [-0.5, '−0.500'],
    [null, '–'],
    [Infinity, 'Infinity'],
  ])('%s is %s', (value, expected) => {
    expect(formatNumber(value)).toBe(expected);
  });

  it('signs, shares and times', () => {
    expect(formatSigned(0.25)).toBe('+0.250');
    expect(formatSigned(-3)).toBe('−3');
    expect(formatPercent(0.0526)).toBe('5.3 %');
    expect(formatSeconds(4.25)).toBe('4.3 s');
    expect(formatSeconds(59.7)).toBe('60 s');
    expect(formatSeconds(7265)).toBe('2 h 1 min');
  });
});

describe('html', () => {
  it('escapes values once and keeps finished markup', () => {
    expect(html`<p>${'a<b'}${[html`<i>${'&'}</i>`, null, undefined, false, 0]}</p>`.text).toBe(
      '<p>a&#60;b<i>&#38;</i>0</p>',
    );
  });

  it('makes visible what cannot be seen', () => {
    expect(escapeHtml('a\u0000\u001b\u007f\u0085\uD800\tb\r\nc')).toBe('a␀␛␡\uFFFD\uFFFD\tb\nc');
  });
});

describe('a chart of curves', () => {
  const values = fc.oneof(
    fc.double({ min: -1e15, max: 1e15, noNaN: true }),
    fc.double({ min: -1e-9, max: 1e-9, noNaN: true }),
    fc.double({ min: 0.5, max: 0.5 + 1e-12, noNaN: true }),
  );

  it.each([[2.3684759930329226e-14], [0.1 + 0.2, 0.3], [1e15, -1e15]])('is drawn of %d …', async (...given) => {
    const points = given.map((value, step) => ({ step, value }));
    const option = curvesOption({ title: 'kl', series: [{ name: 'kl', points }] });
    await expect(renderSvg(option, { id: 'a', label: 'kl', width: 480, height: 200 })).resolves.toBeDefined();
  });

  it('is drawn of whatever values', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(values, { minLength: 1, maxLength: 6 }), async (given) => {
        const points = given.map((value, step) => ({ step, value }));
        const option = curvesOption({ title: 'loss', series: [{ name: 'loss', points }] });
        await renderSvg(option, { id: 'a', label: 'loss', width: 480, height: 200 });
      }),
      { numRuns: 200 },
    );
  });

  it('tells nine digits of its largest value apart, and takes what is as small as rounding for zero', () => {
    const curve = (...given: number[]) => [given.map((value, step) => ({ step, value }))];
    expect(distinguishable(curve(2e-14))).toEqual(curve(0));
    expect(distinguishable(curve(3.14159265358979, 1e-12))).toEqual(curve(3.14159265, 0));
    expect(distinguishable(curve(1e-6, 1.23456789e-7))).toEqual(curve(1e-6, 1.2345679e-7));
  });
});
