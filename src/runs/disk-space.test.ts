import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { bytesText } from '../errors.js';
import { requireSpace } from './disk-space.js';

it.each([
  [0, '0 bytes'],
  [1023, '1023 bytes'],
  [1024, '1.00 KiB'],
  [300_000, '293 KiB'],
  [1023 * 1024, '0.999 MiB'],
  [1.5 * 2 ** 20, '1.50 MiB'],
  [12.25 * 2 ** 30, '12.3 GiB'],
  [2 ** 60, '1048576 TiB'],
])('%s bytes are said as %s', (bytes, text) => {
  expect(bytesText(bytes)).toBe(text);
});

it('what has room begins, what has none is refused with both figures, also in a folder that is yet to be made', async () => {
  const needed = { code: 'test.no-space', what: 'The copy', fix: 'Free some space.' };
  const folder = join(tmpdir(), 'not', 'yet', 'there');
  await requireSpace(folder, 1, needed);
  await expect(requireSpace(folder, 2 ** 60, needed)).rejects.toMatchObject({
    code: 'test.no-space',
    message: expect.stringMatching(/^The copy needs 1048576 TiB; \S+ [KMGT]iB are free\.$/) as string,
    where: folder,
    exitCode: 3,
  });
});
