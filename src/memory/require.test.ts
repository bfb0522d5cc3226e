import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { availableBytes } from './available.js';
import { requireMemory } from './require.js';

const GIB = 2 ** 30;
const plan = (bytes: number) => ({ bytes, parts: [{ name: 'activations of training', bytes }] });
const check = (limit: number | undefined, bytes: number, ways: readonly number[] = [], resume = false): UserError => {
  try {
    requireMemory(
      'sft',
      { resume, memory: { limit } },
      {
        plan: () => plan(bytes),
        ways: () => ways.map((each) => ({ settings: [`sft.batchSize=${each}`], bytes: each * GIB })),
      },
    );
  } catch (error) {
    if (error instanceof UserError) return error;
  }
  throw new Error('it was not refused');
};

describe('a stage', () => {
  it('begins where its plan fits, where it is resumed, and where nothing is to be looked at', () => {
    for (const [limit, bytes, resume] of [
      [4, 3.9 * GIB, false],
      [undefined, 1, false],
      [0, 1e15, false],
      [1, 4 * GIB, true],
    ] as const) {
      expect(() => check(limit, bytes, [], resume)).toThrow('it was not refused');
    }
  });

  it('is refused as the fault of the machine where its plan exceeds the limit or what is free', () => {
    expect(check(1, 2 * GIB)).toMatchObject({ code: 'machine.memory-plan', exitCode: 3, where: 'memory.limit' });
    const error = check(undefined, availableBytes() + 1000 * GIB);
    expect(error).toMatchObject({ exitCode: 3, where: 'this machine' });
    expect(error.message).toContain('activations of training');
  });

  it('is told the settings that fit, those that change least first, and how to try all the same', () => {
    const { fix } = check(4, 9 * GIB, [1, 2, 3, 8]);
    expect(fix).toMatch(/^It takes 3\.00 GiB with --set sft\.batchSize=3; 2\.00 GiB .*; 1\.00 GiB /);
    expect(fix).not.toContain('batchSize=8');
    expect(fix).toContain('--memory-limit 0');
    expect(check(4, 9 * GIB, [8, 5]).fix).toContain('5.00 GiB with --set sft.batchSize=5, still too much');
  });
});
