import { describe, expect, it } from 'vitest';
import { machineError, UserError } from '../errors.js';
import { Interrupted } from '../runs/events.js';
import { failureOf } from './report-error.js';

const running = new AbortController().signal;

describe('failureOf', () => {
  it('tells what, where and how to mend it, without a stack', () => {
    const failure = failureOf(
      new UserError({ code: 'a.b', message: 'It is wrong.', where: 'f:1', fix: 'Mend it.' }),
      running,
    );
    expect(failure.exitCode).toBe(2);
    expect(failure.text).toBe('Error: It is wrong.\n  Where: f:1\n  Fix:   Mend it.');
    expect(failure.error).toEqual({ code: 'a.b', message: 'It is wrong.', where: 'f:1', fix: 'Mend it.' });
  });

  it('knows the machine from the input', () => {
    expect(failureOf(machineError({ code: 'm', message: 'No.' }), running)).toMatchObject({
      exitCode: 3,
      text: 'Error: No.',
    });
    const full = Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
    expect(failureOf(full, running)).toMatchObject({ exitCode: 3, error: { code: 'machine.disk' } });
    const memory = failureOf(new RangeError('Array buffer allocation failed'), running);
    expect(memory).toMatchObject({ exitCode: 3, error: { code: 'machine.memory' } });
  });

  it('shows the stack of a bug and asks for a report', () => {
    const failure = failureOf(new TypeError('x is not a function'), running);
    expect(failure.exitCode).toBe(1);
    expect(failure.text).toMatch(/TypeError: x is not a function\n\s+at .*report/s);
    expect(failureOf('text', running)).toMatchObject({ exitCode: 1, error: { message: 'text' } });
  });

  it('knows who stopped it', () => {
    expect(failureOf(new Interrupted('/runs/x', 7), running)).toMatchObject({ exitCode: 130 });
    const controller = new AbortController();
    controller.abort();
    expect(failureOf(controller.signal.reason, controller.signal).exitCode).toBe(130);
    expect(failureOf(new Error('unrelated'), controller.signal).exitCode).toBe(1);
  });
});
