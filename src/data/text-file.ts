import { readFile } from 'node:fs/promises';
import { UserError } from '../errors.js';

const NEWLINE = 0x0a;
// Tab and newline are the only control characters that belong in a text.
const CONTROL = new RegExp('[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]', 'u');

/**
 * Reads a UTF-8 text file. A byte order mark is dropped and line ends become `\n`.
 *
 * @throws UserError when the file is missing, unreadable, empty, not UTF-8, or holds control characters.
 */
export async function readTextFile(file: string): Promise<string> {
  return decodeText(await readBytes(file), file);
}

async function readBytes(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code;
    if (reason === 'ENOENT' || reason === 'ENOTDIR') {
      throw new UserError({
        code: 'data.missing-file',
        message: 'The data file does not exist.',
        where: file,
        fix: 'Check the path. `duanzi data pull` fetches the published data.',
        cause,
      });
    }
    throw new UserError({
      code: 'data.unreadable-file',
      message: `The data file cannot be read (${reason ?? String(cause)}).`,
      where: file,
      fix: reason === 'EISDIR' ? 'Name a file, not a folder.' : 'Check that you may read it.',
      cause,
    });
  }
}

/** The text of `bytes` as {@link readTextFile} returns it; `file` names them in errors. */
export function decodeText(bytes: Buffer, file: string): string {
  refuseUtf16(bytes, file);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw wrongEncoding(bytes, file, cause);
  }
  if (text.trim() === '') {
    throw new UserError({
      code: 'data.empty-file',
      message: 'The data file is empty.',
      where: file,
      fix: 'Give a file with a header line and at least one row.',
    });
  }
  if (text.includes('\r')) text = text.replace(/\r\n?/gu, '\n');
  refuseControlCharacters(text, file);
  return text;
}

function refuseUtf16(bytes: Buffer, file: string): void {
  const [first, second] = bytes;
  if (!((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff))) return;
  throw new UserError({
    code: 'data.wrong-encoding',
    message: 'The data file is UTF-16, not UTF-8.',
    where: file,
    fix: 'Save it as UTF-8, for example: iconv -f UTF-16 -t UTF-8 old.csv > new.csv',
  });
}

function wrongEncoding(bytes: Buffer, file: string, cause: unknown): UserError {
  const encoding = decodes(bytes, 'gb18030') ? 'GB18030' : undefined;
  return new UserError({
    code: 'data.wrong-encoding',
    message:
      encoding === undefined
        ? 'The data file has bytes that are not UTF-8.'
        : `The data file is not UTF-8; its bytes read as ${encoding}.`,
    where: `${file}:${firstUndecodableLine(bytes)}`,
    fix: `Save it as UTF-8, for example: iconv -f ${encoding ?? 'ITS-ENCODING'} -t UTF-8 old.csv > new.csv`,
    cause,
  });
}

/** Lines can be decoded one by one: no UTF-8 sequence contains the byte of a newline. */
function firstUndecodableLine(bytes: Buffer): number {
  for (let start = 0, line = 1; ; line++) {
    const end = bytes.indexOf(NEWLINE, start);
    if (end === -1 || !decodes(bytes.subarray(start, end), 'utf-8')) return line;
    start = end + 1;
  }
}

function decodes(bytes: Uint8Array, encoding: string): boolean {
  try {
    new TextDecoder(encoding, { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

function refuseControlCharacters(text: string, file: string): void {
  const found = CONTROL.exec(text);
  if (found === null) return;
  const before = text.slice(0, found.index);
  const line = countNewlines(before) + 1;
  const column = before.length - before.lastIndexOf('\n');
  const name = `U+${found[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}`;
  throw new UserError({
    code: 'data.control-character',
    message: `The text holds the control character ${name} (character ${column} of the line).`,
    where: `${file}:${line}`,
    fix: 'Remove it; only tabs and line breaks may stand in a text.',
  });
}

/** Number of `\n` in a text. */
export function countNewlines(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) count++;
  return count;
}
