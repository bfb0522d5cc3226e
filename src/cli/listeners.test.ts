import fc from 'fast-check';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { StageEvent } from '../runs/events.js';
import { safeText, showDuration, showMetrics, showNumber, showProgress } from './event-text.js';
import { progressListener } from './progress-listener.js';

async function told(events: [number, StageEvent][], isTTY = false): Promise<string> {
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 80 });
  let time = 0;
  const listener = progressListener({ stream, quiet: false, now: () => time });
  for (const [at, event] of events) {
    time = at;
    listener.onEvent(event);
  }
  listener.close();
  stream.end();
  return (await stream.toArray()).join('');
}

const progress = (done: number, task = 'train', total = 100): StageEvent => ({ type: 'progress', task, done, total });

describe('plain lines', () => {
  it('tell the edges of a task, and progress at intervals', async () => {
    const text = await told([
      [0, progress(0)],
      [10, progress(1)],
      [4999, progress(40)],
      [5001, progress(41)],
      [5002, progress(100)],
      [5003, progress(3, 'evaluate', 9)],
    ]);
    expect(text.trim().split('\n')).toEqual([
      'train 0/100 (0 %)',
      'train 41/100 (41 %)',
      'train 100/100 (100 %)',
      'evaluate 3/9 (33 %)',
    ]);
  });

  it('tell metrics at most once a second, and samples always', async () => {
    const metrics = (step: number): StageEvent => ({ type: 'metrics', step, epoch: 1, values: { loss: step } });
    const sample: StageEvent = {
      type: 'sample',
      step: 2,
      label: 'words',
      prompt: '词\n语',
      completion: '段子',
      reward: 1.5,
    };
    const text = await told([
      [0, metrics(1)],
      [900, metrics(2)],
      [901, sample],
      [902, sample],
      [1000, metrics(3)],
    ]);
    expect(text).not.toContain('step 2 (');
    expect(text).toContain('step 3 (epoch 1) loss 3\n');
    expect(text.match(/ {2}step 2 · words · reward 1\.5\n {4}词\n {4}语\n {2}→ 段子\n/g)).toHaveLength(2);
  });
});

describe('the bar', () => {
  it('shows the task, the newest metrics and what scrolls above', async () => {
    const text = await told(
      [
        [0, { type: 'start', stage: 'sft', out: '/x', totalSteps: 100 }],
        [1, progress(0)],
        [2, { type: 'metrics', step: 1, epoch: 0, values: { loss: 2.5 } }],
        [3, progress(50)],
        [4, { type: 'warning', code: 'w', message: 'mind' }],
        [5, { type: 'progress', task: 'fetch', done: 7 }],
        [6, { type: 'end', out: '/x' }],
      ],
      true,
    );
    expect(text).toContain('sft → /x (100 steps)');
    expect(text).toContain('Warning: mind');
    expect(text).toContain('done: /x');
    expect(text).toMatch(/train .+ 0\/100/);
    expect(text).toContain('fetch 7 · loss 2.5');
    expect(text).not.toMatch(/\u001b\[\?/);
  });
});

describe('texts', () => {
  it.each([
    [0, '0'],
    [2e-5, '2e-5'],
    [0.36787944, '0.3679'],
    [12, '12'],
    [1234.56, '1235'],
    [NaN, 'NaN'],
    [-1e9, '-1e+9'],
  ])('%d is %s', (value, text) => {
    expect(showNumber(value)).toBe(text);
  });

  it.each([
    [0.4, '0 s'],
    [59.6, '1 min 0 s'],
    [3599, '59 min 59 s'],
    [7860, '2 h 11 min'],
  ])('%d s is %s', (seconds, text) => {
    expect(showDuration(seconds)).toBe(text);
  });

  it('numbers keep four digits', () => {
    fc.assert(
      fc.property(fc.double({ min: -1e300, max: 1e300, noNaN: true }), (value) => {
        expect(Math.abs(Number(showNumber(value)) - value)).toBeLessThanOrEqual(
          Math.abs(value) * 5e-4 + Number.MIN_VALUE,
        );
      }),
    );
  });

  it('metrics show what tells how it goes, or the first', () => {
    expect(showMetrics({ other: 1, kl: 0.5, loss: 2 })).toBe('loss 2 · kl 0.5');
    expect(showMetrics({ a: 1, b: 2 })).toBe('a 1 · b 2');
  });

  it('of a model cannot steer the terminal', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(safeText(text)).not.toMatch(/[\0-\x09\x0b-\x1f\x7f-\x9f]/);
      }),
    );
    expect(showProgress({ type: 'progress', task: 't', done: 3, note: 'n' })).toBe('t 3 n');
  });
});
