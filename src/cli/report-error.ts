import { machineError, UserError } from '../errors.js';
import { version } from './version.js';

/** What a command that failed leaves behind: an exit code, a text for people, an object for machines. */
export interface Failure {
  readonly exitCode: 1 | 2 | 3 | 130;
  readonly text: string;
  readonly error: { code: string; message: string; where?: string; fix?: string };
}

/** Sorts what a command threw: stopped by a person, a fault of input or machine, or a bug. */
export function failureOf(thrown: unknown, signal: AbortSignal): Failure {
  if (wasInterrupted(thrown, signal)) {
    const message = thrown instanceof Error && thrown.name === 'Interrupted' ? thrown.message : 'Interrupted.';
    return { exitCode: 130, text: message, error: { code: 'interrupted', message } };
  }
  const known = thrown instanceof UserError ? thrown : machineFault(thrown);
  if (known === undefined) return bug(thrown);
  const { code, message, where, fix, exitCode } = known;
  const lines = [`Error: ${message}`];
  if (where !== undefined) lines.push(`  Where: ${where}`);
  if (fix !== undefined) lines.push(`  Fix:   ${fix}`);
  const error = { code, message, ...(where !== undefined && { where }), ...(fix !== undefined && { fix }) };
  return { exitCode, text: lines.join('\n'), error };
}

function wasInterrupted(thrown: unknown, signal: AbortSignal): boolean {
  if (thrown instanceof Error && thrown.name === 'Interrupted') return true;
  return signal.aborted && (thrown === signal.reason || (thrown instanceof Error && thrown.name === 'AbortError'));
}

/** Memory and disk that ran out wherever nobody looked. */
function machineFault(thrown: unknown): UserError | undefined {
  if (!(thrown instanceof Error)) return undefined;
  const errno = 'code' in thrown ? thrown.code : undefined;
  if (errno === 'ENOSPC' || errno === 'EDQUOT') {
    const fix = 'Free space, or write to another disk.';
    return machineError({ code: 'machine.disk', message: 'The disk is full.', fix, cause: thrown });
  }
  if (errno === 'ENOMEM' || (thrown instanceof RangeError && /allocation failed/i.test(thrown.message))) {
    const fix = 'Lower the batch size or the lengths, or use a smaller model.';
    return machineError({ code: 'machine.memory', message: 'The memory does not suffice.', fix, cause: thrown });
  }
  return undefined;
}

function bug(thrown: unknown): Failure {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const stack = thrown instanceof Error ? (thrown.stack ?? message) : message;
  const text = `${stack}\n\nThis is a bug in duanzi ${version()}, not a fault of yours. Please report it with the lines above and the command.`;
  return { exitCode: 1, text, error: { code: 'bug', message } };
}
