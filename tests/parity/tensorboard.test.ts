import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { maskedCrc32c } from '../../src/runs/tensorboard/crc32c.js';
import { readEvents, type SummaryValue } from '../../src/runs/tensorboard/reader.js';
import { frameRecord, unframeRecords } from '../../src/runs/tensorboard/records.js';
import { EventWriter } from '../../src/runs/tensorboard/writer.js';

// An event file of torch's SummaryWriter, what it was given, and what TensorBoard's own reader finds in it.
const golden = fileURLToPath(new URL('../fixtures/golden/tensorboard/', import.meta.url));
const file = join(golden, 'events.out.tfevents.1700000000.golden.0.0');
const json = (name: string): unknown => JSON.parse(readFileSync(join(golden, name), 'utf8'));

const number = z.union([z.number(), z.enum(['NaN', 'Infinity', '-Infinity']).transform(Number)]);
const readback = z
  .object({
    scalars: z.record(z.string(), z.array(z.object({ step: z.int(), wall_time: z.number(), value: number }))),
    histograms: z.record(
      z.string(),
      z.array(
        z.object({
          step: z.int(),
          min: z.number(),
          max: z.number(),
          num: z.number(),
          sum: z.number(),
          sum_squares: z.number(),
          bucket_limit: z.array(z.number()),
          bucket: z.array(z.number()),
        }),
      ),
    ),
    tensors: z.record(
      z.string(),
      z.array(
        z.object({
          step: z.int(),
          shape: z.array(z.int()),
          strings: z.array(z.string()),
          plugin: z.string(),
        }),
      ),
    ),
    events: z.array(z.string()),
    bytes: z.int(),
  })
  .parse(json('readback.json'));
const given = z
  .object({ scalars_given_as_float64: z.record(z.string(), z.array(z.number())) })
  .parse(json('given.json'));

const { events, torn } = readEvents(file);

/** All values of a kind, by tag, with their step and time. */
function byTag<Kind extends SummaryValue['kind']>(kind: Kind) {
  const found: Record<string, (Extract<SummaryValue, { kind: Kind }> & { step: number; wallTime: number })[]> = {};
  for (const { step, wallTime, values } of events) {
    for (const value of values) {
      if (value.kind !== kind) continue;
      (found[value.tag] ??= []).push({ ...(value as Extract<SummaryValue, { kind: Kind }>), step, wallTime });
    }
  }
  return found;
}

describe('reading what SummaryWriter wrote', () => {
  it('finds every event, in order', () => {
    expect(torn).toBe(false);
    const described = events.map(({ fileVersion, values }) =>
      fileVersion === undefined ? `summary:${values[0]!.tag}=tensor` : `file_version:${fileVersion}`,
    );
    expect(described).toEqual(readback.events);
  });

  it('finds the scalars with tags, steps and times exactly, NaN and infinity included', () => {
    const scalars = byTag('scalar');
    expect(Object.keys(scalars)).toEqual(Object.keys(readback.scalars));
    for (const [tag, points] of Object.entries(readback.scalars)) {
      expect(scalars[tag]!.map(({ step, wallTime: wall_time, value }) => ({ step, wall_time, value }))).toEqual(points);
    }
  });

  it('finds the values that were given, as float32', () => {
    const scalars = byTag('scalar');
    for (const [tag, values] of Object.entries(given.scalars_given_as_float64)) {
      expect(scalars[tag]!.map(({ value }) => value)).toEqual(values.map(Math.fround));
    }
  });

  it('finds the text', () => {
    const texts = byTag('text');
    expect(Object.keys(texts)).toEqual(Object.keys(readback.tensors));
    for (const [tag, recorded] of Object.entries(readback.tensors)) {
      const found = texts[tag]!.map(({ step, shape, texts: strings, plugin }) => ({ step, shape, strings, plugin }));
      expect(found).toEqual(recorded);
    }
  });

  it('finds the histogram', () => {
    const histograms = byTag('histogram');
    for (const [tag, recorded] of Object.entries(readback.histograms)) {
      const found = histograms[tag]!.map(({ step, histogram: { sumSquares, bucketLimit, ...rest } }) => ({
        step,
        sum_squares: sumSquares,
        bucket_limit: bucketLimit,
        ...rest,
      }));
      expect(found).toEqual(recorded);
    }
  });
});

describe('framing', () => {
  const bytes = readFileSync(file);

  it('puts the recorded bytes together again exactly', () => {
    expect(bytes).toHaveLength(readback.bytes);
    const { records } = unframeRecords(bytes, file);
    expect(Buffer.concat(records.map(frameRecord)).equals(bytes)).toBe(true);
  });

  it('has the recorded checksums', () => {
    expect(maskedCrc32c(bytes.subarray(0, 8))).toBe(bytes.readUInt32LE(8));
    const length = Number(bytes.readBigUInt64LE(0));
    expect(maskedCrc32c(bytes.subarray(12, 12 + length))).toBe(bytes.readUInt32LE(12 + length));
  });
});

describe('writing the same content', () => {
  const folder = mkdtempSync(join(tmpdir(), 'duanzi-tensorboard-'));
  const writer = new EventWriter(folder);
  for (const { step, wallTime, values } of events) {
    for (const value of values) {
      if (value.kind === 'scalar') writer.scalar(value.tag, step, value.value, wallTime);
      if (value.kind === 'text') {
        writer.text(value.tag.replace(/\/text_summary$/, ''), step, value.texts[0]!, wallTime);
      }
    }
  }
  writer.close();
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });
  const ours = readFileSync(writer.path!);

  it('reads back equal', () => {
    const isOurs = ({ values }: { values: SummaryValue[] }) => values.every(({ kind }) => kind !== 'histogram');
    expect(readEvents(writer.path!).events.slice(1)).toEqual(events.slice(1).filter(isOurs));
  });

  it('gives the same bytes for every scalar and text', () => {
    const recorded = unframeRecords(readFileSync(file), file).records;
    // Without the first record, which names the writer, and the last, the histogram.
    expect(unframeRecords(ours, writer.path!).records.slice(1)).toEqual(recorded.slice(1, -1));
  });
});
