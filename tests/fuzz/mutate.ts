import type { stream } from '../../src/random.js';

type Random = ReturnType<typeof stream>;

/** Numbers that readers trip over, as text. */
const NUMBERS = ['0', '-1', '1e999', '4294967296', '9007199254740993', '18446744073709551615', '0.5', 'NaN', 'null'];
/** Pieces of syntax, of JSON, YAML, CSV and paths, and bytes that are not UTF-8. */
const PIECES = [
  '"',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '\n',
  '\r\n',
  '\0',
  '\ufeff',
  '\\u0000',
  '\\ud800',
  '../',
  '&a',
  '*a',
];
const RAW = [0x00, 0x7f, 0x80, 0xff, 0xfe, 0xc0];

/** A file as it might be after something went wrong with it: one to four changes of kinds that a seed draws. */
export function mutate(bytes: Buffer, other: Buffer, random: Random): Buffer {
  let result: Buffer = Buffer.from(bytes);
  const changes = 1 + random.integer(4);
  for (let i = 0; i < changes; i++) result = change(result, other, random);
  return result;
}

function change(bytes: Buffer, other: Buffer, random: Random): Buffer {
  const at = random.integer(bytes.length + 1);
  const length = Math.min(bytes.length - at, 1 + random.integer(random.uniform() < 0.5 ? 8 : 4096));
  const insert = (piece: Uint8Array, removed = 0): Buffer =>
    Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + removed)]);
  switch (random.integer(9)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      return insert(Buffer.alloc(0), length);
    case 2:
      return insert(bytes.subarray(at, at + length));
    case 3:
      return insert(Buffer.from(PIECES[random.integer(PIECES.length)]!));
    case 4:
      return insert(Buffer.from([RAW[random.integer(RAW.length)]!]), 1);
    case 5: {
      const from = random.integer(other.length + 1);
      return insert(other.subarray(from, from + length), length);
    }
    case 6:
      return replaceNumber(bytes, random);
    case 7: {
      const flipped = Buffer.from(bytes);
      if (at < flipped.length) flipped[at]! ^= 1 << random.integer(8);
      return flipped;
    }
    default: {
      const piece = Buffer.alloc(8);
      piece.writeBigUInt64LE(BigInt(random.integer(2 ** 31)) << BigInt(random.integer(33)));
      return insert(piece, 8);
    }
  }
}

/** Puts another number in the place of one that the file says in digits. */
function replaceNumber(bytes: Buffer, random: Random): Buffer {
  const text = bytes.toString('latin1');
  const numbers = [...text.slice(0, 65536).matchAll(/-?\d+(\.\d+)?/g)];
  if (numbers.length === 0) return bytes;
  const { index, 0: old } = numbers[random.integer(numbers.length)]!;
  const replacement = NUMBERS[random.integer(NUMBERS.length)]!;
  return Buffer.from(text.slice(0, index) + replacement + text.slice(index + old.length), 'latin1');
}
