import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { readFloats, readHeader, readTensor } from './safetensors.js';
import {
  sourceInDtype,
  sourceOfArray,
  sourceOfFloats,
  writeSafetensors,
  type TensorSource,
} from './safetensors-writer.js';
import { storedBytes, storedDtypes, viewAs, type StoredDtype } from './stored-dtype.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A file of the given header text and data. */
async function fileOf(header: string | Uint8Array, data: Uint8Array, claimedLength?: bigint): Promise<string> {
  const json = Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(claimedLength ?? BigInt(json.byteLength));
  const path = join(folder, 'given.safetensors');
  await writeFile(path, Buffer.concat([prefix, json, data]));
  return path;
}

const entry = (dtype: string, shape: unknown, begin: unknown, end: unknown): unknown => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

describe('a bad file is refused by name', () => {
  const two = JSON.stringify({ a: entry('F32', [2], 0, 8), b: entry('F32', [1], 8, 12) });
  const data = (bytes: number): Uint8Array => new Uint8Array(bytes);

  it.each<[string, string | Uint8Array, number, RegExp]>([
    ['data cut short', two, 10, /tensor `b` lies at bytes 8 to 12 of a data part of 10/],
    ['data too long', two, 13, /last 1 bytes belong to no tensor/],
    ['overlap', JSON.stringify({ a: entry('F32', [2], 0, 8), b: entry('F32', [1], 4, 8) }), 8, /`a` and `b` overlap/],
    [
      'hole',
      JSON.stringify({ a: entry('F32', [1], 0, 4), b: entry('F32', [1], 8, 12) }),
      12,
      /4 bytes before tensor `b`/,
    ],
    [
      'lying shape',
      JSON.stringify({ a: entry('F32', [3], 0, 8) }),
      8,
      /`a`, F32 of shape \(3\), needs 12 bytes but has 8/,
    ],
    ['shape beyond all numbers', JSON.stringify({ a: entry('F32', [2 ** 50, 2 ** 50], 0, 8) }), 8, /needs .* bytes/],
    ['reversed range', JSON.stringify({ a: entry('F32', [0], 8, 4) }), 8, /`a` lies at bytes 8 to 4/],
    ['negative dimension', JSON.stringify({ a: entry('F32', [-1], 0, 4) }), 4, /tensor `a`, shape\.0/],
    ['fractional offset', JSON.stringify({ a: entry('F32', [1], 0.5, 4.5) }), 4, /tensor `a`, data_offsets\.0/],
    [
      'unknown dtype',
      JSON.stringify({ a: entry('F8_E4M3', [4], 0, 4) }),
      4,
      /Tensor `a` is stored as "F8_E4M3", which is not read\. Known are F64, F32, /,
    ],
    ['entry that is no object', JSON.stringify({ a: 3 }), 0, /tensor `a`/],
    ['metadata that is no text', JSON.stringify({ __metadata__: { n: 1 } }), 0, /__metadata__/],
    ['metadata that is no object', JSON.stringify({ __metadata__: 'pt' }), 0, /__metadata__/],
    ['invalid JSON', '{"a":', 0, /not JSON/],
    ['an array', '[]', 0, /not a JSON object/],
    ['null', 'null', 0, /not a JSON object/],
    ['not UTF-8', Uint8Array.of(0x7b, 0xff, 0x7d), 0, /not JSON in UTF-8/],
    [
      'duplicate name',
      `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}`,
      4,
      /names `a` twice/,
    ],
    ['duplicate, escaped', `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{}}`, 0, /names `a` twice/],
    ['duplicate field', `{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1, /names `dtype` twice/],
  ])('%s', async (_, header, bytes, message) => {
    const path = await fileOf(header, data(bytes));
    const error = await readHeader(path).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(UserError);
    expect((error as UserError).message).toMatch(message);
    expect((error as UserError).where).toBe(path);
  });

  it('a header longer than the file', async () => {
    const path = await fileOf('{}', data(0), 2n ** 63n);
    await expect(readHeader(path)).rejects.toThrow(/header has 9223372036854775808 bytes, but the file has 10/);
  });

  it('a header above the cap, without reading it', async () => {
    const path = await fileOf('{}', data(0), 100_000_001n);
    await truncate(path, 100_000_100);
    await expect(readHeader(path)).rejects.toThrow(/exceeds the limit/);
  });

  it('an empty file, a missing one, a folder', async () => {
    const empty = join(folder, 'empty.safetensors');
    await writeFile(empty, '');
    await expect(readHeader(empty)).rejects.toThrow(/0 bytes long/);
    await expect(readHeader(join(folder, 'absent'))).rejects.toMatchObject({ code: 'checkpoint.missing-file' });
    await expect(readHeader(folder)).rejects.toMatchObject({ code: 'checkpoint.not-a-file' });
  });

  it('a file cut short after its header was read', async () => {
    const path = await fileOf(two, data(12));
    const { tensors } = await readHeader(path);
    await truncate(path, 8 + two.length + 9);
    await expect(readTensor(tensors.get('b')!)).rejects.toMatchObject({ code: 'checkpoint.truncated' });
  });

  it('integers asked for as weights', async () => {
    const path = await fileOf(JSON.stringify({ ids: entry('I64', [1], 0, 8) }), data(8));
    const { tensors } = await readHeader(path);
    await expect(readFloats(tensors.get('ids')!)).rejects.toThrow(/`ids` holds I64/);
  });
});

describe('tensor names are only names', () => {
  it.each(['__proto__', 'constructor', '权重.weight', 'a"b\\c', '', '0'])('%j', async (name) => {
    const path = join(folder, 'names.safetensors');
    await writeSafetensors(path, [sourceOfArray(name, 'F32', [1], Float32Array.of(7))]);
    const { tensors } = await readHeader(path);
    expect([...tensors.keys()]).toEqual([name]);
    expect(await readTensor(tensors.get(name)!)).toEqual(Float32Array.of(7));
  });
});

const tensorArbitrary = fc
  .record({
    name: fc.string({ unit: 'grapheme', maxLength: 12 }).filter((name) => name !== '__metadata__'),
    dtype: fc.constantFrom<StoredDtype>(...storedDtypes),
    shape: fc.array(fc.nat({ max: 4 }), { maxLength: 4 }),
  })
  .chain(({ name, dtype, shape }) => {
    const bytes = shape.reduce((product, size) => product * size, storedBytes(dtype));
    return fc
      .uint8Array({ minLength: bytes, maxLength: bytes })
      .map((raw) => ({ name, dtype, shape, data: viewAs(dtype, new Uint8Array(raw).buffer) }));
  });

const toSource = (tensor: {
  name: string;
  dtype: StoredDtype;
  shape: number[];
  data: ReturnType<typeof viewAs>;
}): TensorSource => sourceOfArray(tensor.name, tensor.dtype, tensor.shape, tensor.data);

describe('round trips', () => {
  it('what is written is read back bit for bit, whatever the order it was given in', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(tensorArbitrary, { selector: (tensor) => tensor.name, maxLength: 6 }),
        fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }),
        async (tensors, metadata) => {
          const path = join(folder, 'round.safetensors');
          await writeSafetensors(path, tensors.map(toSource), { metadata });
          const first = await readFile(path);
          const header = await readHeader(path);
          expect(header.tensors.size).toBe(tensors.length);
          expect(new Map(Object.entries(header.metadata))).toEqual(new Map(Object.entries(metadata)));
          for (const { name, dtype, shape, data } of tensors) {
            const info = header.tensors.get(name)!;
            expect([info.dtype, info.shape, info.offset % storedBytes(dtype)]).toEqual([dtype, shape, 0]);
            const read = await readTensor(info);
            expect(Buffer.from(read.buffer).equals(Buffer.from(data.buffer))).toBe(true);
          }
          await writeSafetensors(path, [...tensors].reverse().map(toSource), { metadata });
          expect((await readFile(path)).equals(first)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('a corrupted file gives its tensors or a UserError, never anything else', async () => {
    const path = join(folder, 'whole.safetensors');
    await writeSafetensors(path, [
      sourceOfArray('a.weight', 'F32', [2, 3], new Float32Array(6)),
      sourceOfArray('a.bias', 'BF16', [3], new Uint16Array(3)),
    ]);
    const whole = await readFile(path);
    const change = fc.record({ at: fc.nat({ max: whole.byteLength - 1 }), to: fc.nat({ max: 255 }) });
    const corruption = fc.record({
      changes: fc.array(change, { maxLength: 4 }),
      size: fc.oneof(fc.constant(whole.byteLength), fc.nat({ max: whole.byteLength + 16 })),
    });
    await fc.assert(
      fc.asyncProperty(corruption, async ({ changes, size }) => {
        const bytes = Buffer.alloc(size);
        whole.copy(bytes);
        for (const { at, to } of changes) if (at < size) bytes[at] = to;
        const bad = join(folder, 'bad.safetensors');
        await writeFile(bad, bytes);
        try {
          const { tensors } = await readHeader(bad);
          for (const info of tensors.values()) {
            expect(info.offset + info.length).toBeLessThanOrEqual(size);
            expect((await readTensor(info)).byteLength).toBe(info.length);
          }
        } catch (error) {
          if (!(error instanceof UserError)) throw error;
        }
      }),
      { numRuns: 300 },
    );
  });

  it('converts block by block: float32 → bfloat16 → float32 is exact for bfloat16 values', async () => {
    const values = Float32Array.from({ length: 2_500_000 }, (_, i) => (i % 256) - 128);
    const stored = join(folder, 'bf16.safetensors');
    await writeSafetensors(stored, [
      sourceOfFloats('w', { dtype: 'float32', shape: [2_500_000], data: values }, 'BF16'),
    ]);
    const narrow = (await readHeader(stored)).tensors.get('w')!;
    expect([narrow.dtype, narrow.length]).toEqual(['BF16', 5_000_000]);
    const widened = join(folder, 'f32.safetensors');
    await writeSafetensors(widened, [sourceInDtype(narrow, 'F32')]);
    const wide = await readFloats((await readHeader(widened)).tensors.get('w')!);
    expect(Buffer.from(wide.data.buffer).equals(Buffer.from(values.buffer))).toBe(true);
  });
});

describe('the writer', () => {
  it('refuses two tensors of one name and a source of the wrong length', async () => {
    const path = join(folder, 'refused.safetensors');
    const one = sourceOfArray('a', 'F32', [1], new Float32Array(1));
    await expect(writeSafetensors(path, [one, one])).rejects.toThrow('two tensors are named a');
    await expect(writeSafetensors(path, [sourceOfArray('a', 'F32', [2], new Float32Array(1))])).rejects.toThrow(
      'gave 4 bytes where 8 belong',
    );
  });

  it('says when a file stands where a folder is needed', async () => {
    const file = join(folder, 'plain');
    await writeFile(file, '');
    for (const path of [join(file, 'x.safetensors'), folder]) {
      await expect(writeSafetensors(path, [])).rejects.toMatchObject({ code: 'checkpoint.cannot-write', where: path });
    }
  });

  it('keeps metadata under any key', async () => {
    const path = join(folder, 'metadata.safetensors');
    const metadata = JSON.parse('{"__proto__":"a","format":"pt"}') as Record<string, string>;
    await writeSafetensors(path, [], { metadata });
    expect(Object.entries((await readHeader(path)).metadata)).toEqual([
      ['__proto__', 'a'],
      ['format', 'pt'],
    ]);
  });

  it('writes through the strategy it is given', async () => {
    const written: Uint8Array[] = [];
    await writeSafetensors('x.safetensors', [sourceOfArray('a', 'U8', [1], Uint8Array.of(9))], {
      write: async (path, chunks) => {
        expect(path).toBe('x.safetensors');
        for await (const chunk of chunks) written.push(chunk);
      },
    });
    expect(Buffer.concat(written).at(-1)).toBe(9);
  });
});
