import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { crc32c, maskedCrc32c } from './crc32c.js';
import { readEvents, readScalars } from './reader.js';
import { frameRecord, unframeRecords } from './records.js';
import { EventWriter } from './writer.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'duanzi-tensorboard-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('crc32c', () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  it.each([
    ['32 zeros', new Uint8Array(32), 0x8a9136aa],
    ['32 ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ['0 to 31', ascending, 0x46dd794e],
    ['31 to 0', ascending.toReversed(), 0x113fdb5c],
    ['"123456789"', Buffer.from('123456789'), 0xe3069283],
    ['nothing', new Uint8Array(0), 0],
  ])('of %s', (_, bytes, expected) => {
    expect(crc32c(bytes)).toBe(expected);
  });

  it('masks as TFRecord does, staying an unsigned number', () => {
    expect(maskedCrc32c(new Uint8Array(0))).toBe(0xa282ead8);
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const rotated = (maskedCrc32c(bytes) - 0xa282ead8) >>> 0;
        return ((rotated << 15) | (rotated >>> 17)) >>> 0 === crc32c(bytes);
      }),
    );
  });
});

describe('records', () => {
  const anyRecords = fc.array(fc.uint8Array({ maxLength: 60 }), { minLength: 1, maxLength: 5 });
  const framed = (records: Uint8Array[]) => new Uint8Array(Buffer.concat(records.map(frameRecord)));

  it('come back as they were framed', () => {
    fc.assert(
      fc.property(anyRecords, (records) => {
        expect(unframeRecords(framed(records), 'x')).toEqual({ records, torn: false });
      }),
    );
  });

  it('give what is whole of a file cut anywhere', () => {
    fc.assert(
      fc.property(anyRecords, fc.nat(), (records, position) => {
        const bytes = framed(records);
        const cut = position % bytes.length;
        let whole = 0;
        let end = 0;
        while (end + records[whole]!.length + 16 <= cut) end += records[whole++]!.length + 16;
        expect(unframeRecords(bytes.subarray(0, cut), 'x')).toEqual({
          records: records.slice(0, whole),
          torn: cut !== end,
        });
      }),
    );
  });

  it('report any flipped bit with the byte of its record', () => {
    fc.assert(
      fc.property(anyRecords, fc.nat(), fc.integer({ min: 0, max: 7 }), (records, position, bit) => {
        const bytes = framed(records);
        const at = position % bytes.length;
        bytes[at]! ^= 1 << bit;
        let start = 0;
        for (const record of records) {
          if (at < start + record.length + 16) break;
          start += record.length + 16;
        }
        expect(() => unframeRecords(bytes, 'the file')).toThrow(
          expect.objectContaining({
            code: 'tensorboard.checksum',
            where: 'the file',
            message: expect.stringContaining(`at byte ${start} `) as string,
          }),
        );
      }),
    );
  });
});

describe('EventWriter', () => {
  it('names its file as TensorBoard expects, and makes none when nothing is written', () => {
    const silent = new EventWriter(join(folder, 'silent'));
    silent.close();
    expect(silent.path).toBeUndefined();
    expect(readdirSync(folder)).toEqual([]);
    const writer = new EventWriter(folder);
    writer.scalar('loss', 1, 0.5);
    writer.close();
    const [, seconds, rest] = /^events\.out\.tfevents\.(\d{10})\.(.+)\.\d+$/.exec(basename(writer.path!))!;
    expect(Math.abs(Number(seconds) - Date.now() / 1000)).toBeLessThan(60);
    expect(rest).toBe(`${hostname()}.${process.pid}`);
  });

  it('begins with the file version and gives back float32 values, steps, texts and times', () => {
    const point = fc.record({
      tag: fc.string({ unit: 'grapheme' }),
      step: fc.nat(Number.MAX_SAFE_INTEGER),
      value: fc.float(),
      wallTime: fc.double({ min: 0, max: 4e9, noNaN: true }),
      text: fc.string({ unit: 'grapheme' }),
    });
    fc.assert(
      fc.property(fc.array(point, { minLength: 1, maxLength: 10 }), (points) => {
        const writer = new EventWriter(folder);
        for (const { tag, step, value, wallTime, text } of points) {
          writer.scalar(tag, step, value, wallTime);
          writer.text(tag, step, text, wallTime);
        }
        writer.close();
        const { events, torn } = readEvents(writer.path!);
        rmSync(writer.path!);
        expect(torn).toBe(false);
        expect(events[0]).toMatchObject({ fileVersion: 'brain.Event:2', step: 0, values: [] });
        expect(events.slice(1)).toEqual(
          points.flatMap(({ tag, step, value, wallTime, text }) => [
            { step, wallTime, sessionStart: false, values: [{ kind: 'scalar', tag, value }] },
            {
              step,
              wallTime,
              sessionStart: false,
              values: [{ kind: 'text', tag: `${tag}/text_summary`, plugin: 'text', shape: [1], texts: [text] }],
            },
          ]),
        );
      }),
      { numRuns: 30 },
    );
  });

  it('buffers until it is flushed or the buffer is full', () => {
    const writer = new EventWriter(folder);
    writer.scalar('loss', 1, 0.5);
    expect(readdirSync(folder)).toEqual([]);
    writer.flush();
    const size = statSync(writer.path!).size;
    writer.scalar('loss', 2, 0.5);
    expect(statSync(writer.path!).size).toBe(size);
    writer.text('long', 3, '长'.repeat(30_000));
    expect(statSync(writer.path!).size).toBeGreaterThan(90_000);
    writer.close();
  });

  it('is read up to the last whole event while it is being written', () => {
    const writer = new EventWriter(folder);
    for (const step of [1, 2]) writer.scalar('loss', step, step);
    writer.close();
    truncateSync(writer.path!, statSync(writer.path!).size - 3);
    const { events, torn } = readEvents(writer.path!);
    expect(torn).toBe(true);
    expect(events.map(({ step }) => step)).toEqual([0, 1]);
  });

  it('resumes in a file that sorts last and makes readers forget the steps done again', () => {
    const write = (steps: number[], value: number, purgeFrom?: number) => {
      const writer = new EventWriter(folder, purgeFrom === undefined ? {} : { purgeFrom });
      for (const step of steps) writer.scalar('loss', step, value);
      writer.close();
      return basename(writer.path!);
    };
    const names = [write([0, 1, 2, 3], 1), write([3, 4], 2, 3), write([4, 5], 3, 4)];
    expect(readdirSync(folder).sort()).toEqual(names);
    const curve = () =>
      readScalars(folder)
        .get('loss')
        ?.map(({ step, value }) => [step, value]);
    expect(curve()).toEqual([
      [0, 1],
      [1, 1],
      [2, 1],
      [3, 2],
      [4, 3],
      [5, 3],
    ]);
    write([0], 4, 0);
    expect(curve()).toEqual([[0, 4]]);
  });
});

describe('readEvents', () => {
  it('names a damaged file', () => {
    const writer = new EventWriter(folder);
    writer.scalar('loss', 1, 1);
    writer.close();
    const bytes = readFileSync(writer.path!);
    bytes[20]! ^= 4;
    writeFileSync(writer.path!, bytes);
    expect(() => readEvents(writer.path!)).toThrow(
      expect.objectContaining({ code: 'tensorboard.checksum', where: writer.path }),
    );
  });

  it('gives no curves for a folder that does not exist and looks at event files only', () => {
    expect(readScalars(join(folder, 'none')).size).toBe(0);
    appendFileSync(join(folder, 'notes.txt'), 'not an event file');
    expect(readScalars(folder).size).toBe(0);
  });
});
