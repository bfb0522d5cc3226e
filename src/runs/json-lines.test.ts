import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { JsonLines, readLines } from './json-lines.js';
import { encodeMetrics, type MetricRow, readMetrics } from './metrics.js';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'duanzi-lines-'));
  path = join(folder, 'metrics.jsonl');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function write(rows: MetricRow[]): void {
  const lines = new JsonLines(path);
  for (const row of rows) lines.append(encodeMetrics(row));
  lines.close();
}

describe('metrics.jsonl', () => {
  it('holds one object a line: step, epoch, then the metrics by name', () => {
    write([{ step: 10, epoch: 0.5, values: { loss: 2.25, 'clip_ratio/low_mean': 0 } }]);
    expect(readFileSync(path, 'utf8')).toBe('{"step":10,"epoch":0.5,"loss":2.25,"clip_ratio/low_mean":0}\n');
  });

  it('keeps NaN and infinities, as strings', () => {
    const values = { a: NaN, b: Infinity, c: -Infinity };
    write([{ step: 0, epoch: 0, values }]);
    expect(readFileSync(path, 'utf8')).toContain('"a":"NaN","b":"Infinity","c":"-Infinity"');
    expect(readMetrics(path)).toEqual([{ step: 0, epoch: 0, values }]);
  });

  it('gives back any numbers under any names', () => {
    const name = fc.string({ minLength: 1 }).filter((text) => !['step', 'epoch', '__proto__'].includes(text));
    const row = fc.record({
      step: fc.nat(),
      epoch: fc.double({ min: 0, max: 100, noNaN: true }).map((value) => value + 0),
      values: fc.dictionary(
        name,
        fc.double().map((value) => (value === 0 ? 0 : value)),
        { noNullPrototype: true },
      ),
    });
    fc.assert(
      fc.property(fc.array(row, { maxLength: 5 }), (rows) => {
        rmSync(path, { force: true });
        write(rows);
        expect(readMetrics(path)).toEqual(rows);
      }),
      { numRuns: 50 },
    );
  });

  it('refuses a metric that would hide the step', () => {
    expect(() => encodeMetrics({ step: 1, epoch: 0, values: { step: 2 } })).toThrow('cannot be called "step"');
  });

  it('names file and line where a line is damaged', () => {
    write([{ step: 1, epoch: 0, values: { loss: 1 } }]);
    appendFileSync(path, '{"step":2,"epoch":0,"loss":"high"}\n');
    expect(() => readMetrics(path)).toThrow(expect.objectContaining({ code: 'metrics.line', where: `${path}:2` }));
  });

  it('has no rows where there is no file', () => {
    expect(readMetrics(path)).toEqual([]);
  });
});

describe('JsonLines', () => {
  const rows = [1, 2, 3].map((step) => ({ step, epoch: 0, values: { loss: step / 4 } }));

  it('drops a line torn at any byte, and appends after what is whole', () => {
    write(rows);
    const whole = readFileSync(path);
    const lastLine = whole.lastIndexOf(10, whole.length - 2) + 1;
    for (let cut = lastLine + 1; cut < whole.length; cut++) {
      writeFileSync(path, whole);
      truncateSync(path, cut);
      expect(readMetrics(path)).toEqual(rows.slice(0, 2));
      write([rows[2]!]);
      expect(readFileSync(path)).toEqual(whole);
    }
  });

  it('drops everything where not even the first line is whole', () => {
    writeFileSync(path, '{"step":1');
    new JsonLines(path).close();
    expect(readFileSync(path, 'utf8')).toBe('');
  });

  it('drops rows after a step and keeps several rows of the same step', () => {
    write([...rows.slice(0, 2), { step: 2, epoch: 0, values: { eval_loss: 1 } }, rows[2]!]);
    const lines = new JsonLines(path);
    lines.truncateAfter(2);
    lines.append({ step: 3, again: true });
    lines.close();
    expect([...readLines(path)].map(({ text }) => JSON.parse(text) as unknown)).toEqual([
      { step: 1, epoch: 0, loss: 0.25 },
      { step: 2, epoch: 0, loss: 0.5 },
      { step: 2, epoch: 0, eval_loss: 1 },
      { step: 3, again: true },
    ]);
  });

  it('drops everything for a run that starts over', () => {
    write([{ step: 0, epoch: 0, values: { eval_loss: 1 } }, ...rows]);
    const lines = new JsonLines(path);
    lines.truncateAfter(-1);
    lines.close();
    expect(readFileSync(path, 'utf8')).toBe('');
  });

  it('drops a page of zeros that a power cut left, and what stands after it', () => {
    write(rows);
    appendFileSync(path, `${'\0'.repeat(100)}\n{"step":3}\n`);
    const lines = new JsonLines(path);
    lines.truncateAfter(3);
    lines.close();
    expect(readMetrics(path)).toEqual(rows);
  });
});
