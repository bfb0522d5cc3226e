import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { AppendFile } from './append-file.js';
import { errnoOf, writeFault } from './file-faults.js';

const systemError = (code: string) => Object.assign(new Error(code), { code });

describe('writeFault', () => {
  it.each([
    ['EACCES', 'file.unwritable', 2],
    ['EPERM', 'file.unwritable', 2],
    ['EROFS', 'file.unwritable', 2],
    ['ENOTDIR', 'file.unwritable', 2],
    ['ENOSPC', 'file.disk', 3],
    ['EDQUOT', 'file.disk', 3],
    ['EIO', 'file.disk', 3],
  ])('%s is %s with exit code %i', (errno, code, exitCode) => {
    const cause = systemError(errno);
    const fault = writeFault(cause, '/runs/x');
    expect(fault).toBeInstanceOf(UserError);
    expect(fault).toMatchObject({ code, exitCode, where: '/runs/x', cause });
    expect((fault as UserError).message).toContain(errno);
  });

  it('passes on what a person cannot mend', () => {
    for (const error of [systemError('EBADF'), new Error('a bug'), 'text']) expect(writeFault(error, 'x')).toBe(error);
    const known = new UserError({ code: 'data.empty', message: 'The file is empty.' });
    expect(writeFault(known, 'x')).toBe(known);
  });

  it('names the place instead of the file beside it where the disk was full', () => {
    const cause = systemError('ENOSPC');
    const beside = new UserError({
      code: 'checkpoint.disk-full',
      message: 'The disk is full.',
      where: '.x.tmp-1',
      cause,
    });
    expect(writeFault(beside, '/runs/x')).toMatchObject({ code: 'file.disk', exitCode: 3, where: '/runs/x', cause });
  });

  it('reads the code of system errors only', () => {
    expect([errnoOf(systemError('ENOENT')), errnoOf(new Error('x')), errnoOf({ code: 'ENOENT' })]).toEqual([
      'ENOENT',
      undefined,
      undefined,
    ]);
  });
});

// Linux has a device that is always full.
describe.each(['/dev/full'].filter((path) => existsSync(path)))('%s', (path) => {
  it('is reported as a full disk', () => {
    const file = new AppendFile(path);
    expect(() => {
      file.append('x');
    }).toThrow(expect.objectContaining({ code: 'file.disk', exitCode: 3, where: path }));
    file.close();
  });
});
