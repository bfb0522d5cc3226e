import { UserError } from '../../errors.js';
import { maskedCrc32c } from './crc32c.js';

/** Length (8 bytes) and its checksum (4 bytes) before the data, the checksum of the data (4 bytes) after it. */
const HEADER = 12;
const FOOTER = 4;

/** Frames one record as TFRecord files do: u64 length, masked CRC-32C of it, data, masked CRC-32C of it; little-endian. */
export function frameRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(HEADER + data.length + FOOTER);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(data, HEADER);
  view.setUint32(HEADER + data.length, maskedCrc32c(data), true);
  return record;
}

/** The records of a file, and whether its end is torn: a last record that is shorter than it says. */
export interface Records {
  records: Uint8Array[];
  torn: boolean;
}

/**
 * Takes the framing off. A record cut off at the end, as a running or killed writer leaves it, is reported and left out.
 *
 * @param where names the file in errors
 * @throws UserError `tensorboard.checksum` with the byte offset of a record whose bytes changed
 */
export function unframeRecords(bytes: Uint8Array, where: string): Records {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const records: Uint8Array[] = [];
  let offset = 0;
  while (offset < bytes.length) {
    if (offset + HEADER > bytes.length) return { records, torn: true };
    if (view.getUint32(offset + 8, true) !== maskedCrc32c(bytes.subarray(offset, offset + 8))) {
      throw changed(where, offset, 'length');
    }
    const start = offset + HEADER;
    const end = start + Number(view.getBigUint64(offset, true));
    if (end + FOOTER > bytes.length) return { records, torn: true };
    const data = bytes.subarray(start, end);
    if (view.getUint32(end, true) !== maskedCrc32c(data)) throw changed(where, offset, 'data');
    records.push(data);
    offset = end + FOOTER;
  }
  return { records, torn: false };
}

function changed(where: string, offset: number, part: string): UserError {
  return new UserError({
    code: 'tensorboard.checksum',
    message: `The record at byte ${offset} is damaged: the checksum of its ${part} does not match.`,
    where,
    fix: 'Remove the file; metrics.jsonl holds the same numbers.',
  });
}
