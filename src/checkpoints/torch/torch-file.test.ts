import fc from 'fast-check';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  legacyTorchFile,
  pickle,
  pickledTensor,
  torchArchive,
  zip,
  type PickledTensor,
} from '../../../tests/support/torch-file.js';
import { UserError } from '../../errors.js';
import { bytesOf, viewAs } from '../stored-dtype.js';
import { inPlace, sourceOfStrided, type StridedTensor } from '../strided.js';
import { openTorchFile } from './torch-file.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'torch-file-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function written(bytes: Uint8Array): Promise<string> {
  const file = join(folder, 'pytorch_model.bin');
  await writeFile(file, bytes);
  return file;
}

async function elements(tensor: StridedTensor): Promise<number[]> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of sourceOfStrided(tensor).bytes()) chunks.push(chunk);
  return Array.from(viewAs(tensor.dtype, new Uint8Array(Buffer.concat(chunks)).buffer), Number);
}

const counting = (length: number): Uint8Array => bytesOf(Float32Array.from({ length }, (_, i) => i));
const floats = (fields: Partial<PickledTensor>): PickledTensor => ({
  storage: 'FloatStorage',
  key: '0',
  size: 6,
  shape: [2, 3],
  strides: [3, 1],
  ...fields,
});
const fault = async (bytes: Uint8Array): Promise<UserError> => {
  const error: unknown = await openTorchFile(await written(bytes)).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
};

describe('tensors of a file that torch.save wrote', () => {
  it('are found where they lie: plain, transposed, parts of a shared storage, parameters', async () => {
    const root = pickle.dictionary({
      plain: pickledTensor(floats({})),
      transposed: pickledTensor(floats({ shape: [3, 2], strides: [1, 3] })),
      column: pickledTensor(floats({ offset: 1, shape: [2, 1], strides: [3, 1] })),
      parameter: pickle.call(
        pickle.global('torch._utils', '_rebuild_parameter'),
        pickledTensor(floats({ offset: 3, shape: [3], strides: [1] })),
        Buffer.from([0x88]),
        pickle.call(pickle.global('collections', 'OrderedDict')),
      ),
      ids: pickledTensor(floats({ storage: 'LongStorage', key: '1', size: 2, shape: [2], strides: [1] })),
      scalar: pickledTensor(floats({ offset: 5, shape: [], strides: [] })),
      empty: pickledTensor(floats({ shape: [0, 3], strides: [3, 1] })),
    });
    const file = await written(torchArchive(root, { '0': counting(6), '1': bytesOf(BigInt64Array.of(7n, -8n)) }));
    const tensors = await openTorchFile(file);

    const content = Object.fromEntries(
      await Promise.all([...tensors].map(async ([name, tensor]) => [name, await elements(tensor)] as const)),
    );
    expect(content).toEqual({
      plain: [0, 1, 2, 3, 4, 5],
      transposed: [0, 3, 1, 4, 2, 5],
      column: [1, 4],
      parameter: [3, 4, 5],
      ids: [7, -8],
      scalar: [5],
      empty: [],
    });
    expect(tensors.get('ids')).toMatchObject({ dtype: 'I64', shape: [2] });
    expect(inPlace(tensors.get('transposed')!)).toBeUndefined();
    expect(inPlace(tensors.get('column')!)).toBeUndefined();
    expect(inPlace({ ...tensors.get('plain')!, offset: 64 })).toMatchObject({ offset: 64, length: 24, shape: [2, 3] });
    expect(inPlace({ ...tensors.get('plain')!, offset: 65 })).toBeUndefined();
  });

  it('are found in the older form, also in a storage that is part of another', async () => {
    const root = pickle.dictionary({
      plain: pickledTensor(floats({}), pickle.none),
      part: pickledTensor(
        floats({ shape: [2], strides: [1] }),
        pickle.tuple(pickle.text('part'), pickle.int(4), pickle.int(2)),
      ),
    });
    const tensors = await openTorchFile(
      await written(legacyTorchFile(root, { '0': { count: 6, bytes: counting(6) } })),
    );
    expect(await elements(tensors.get('plain')!)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await elements(tensors.get('part')!)).toEqual([4, 5]);
  });

  it('are gathered for any shape and strides as index arithmetic says', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
        fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
        fc.integer({ min: 0, max: 3 }),
        async (shape, axes, offset) => {
          const order = axes.filter((axis) => axis < shape.length);
          const strides = shape.map(() => 0);
          let step = 1;
          for (const axis of order) {
            strides[axis] = step;
            step *= shape[axis]!;
          }
          const size = step + offset;
          const root = pickle.dictionary({ x: pickledTensor(floats({ size, offset, shape, strides })) });
          const tensors = await openTorchFile(await written(torchArchive(root, { '0': counting(size) })));
          const expected = indices(shape).map((index) =>
            index.reduce((at, i, axis) => at + i * strides[axis]!, offset),
          );
          expect(await elements(tensors.get('x')!)).toEqual(expected);
        },
      ),
      { numRuns: 30 },
    );
  });
});

const indices = (shape: readonly number[]): number[][] =>
  shape.reduce<number[][]>(
    (sofar, size) => sofar.flatMap((index) => Array.from({ length: size }, (_, i) => [...index, i])),
    [[]],
  );

describe('a file that asks for more than tensors is refused, and the name is told', () => {
  const stackGlobal = Buffer.concat([
    Buffer.from([0x8c, 2]),
    Buffer.from('os'),
    Buffer.from([0x8c, 6]),
    Buffer.from('system'),
    Buffer.from([0x93]),
  ]);
  it.each([
    ['a command', pickle.call(pickle.global('posix', 'system'), pickle.text('touch pwned')), 'posix.system'],
    ['code', pickle.call(pickle.global('builtins', 'eval'), pickle.text('1')), 'builtins.eval'],
    ['a command by its newer opcode', stackGlobal, 'os.system'],
    ['a class nearby', pickle.global('torch.nn.modules.linear', 'Linear'), 'torch.nn.modules.linear.Linear'],
    ["an attribute of JavaScript's objects", pickle.global('__proto__', 'constructor'), '__proto__.constructor'],
    ['another element type', pickledTensor(floats({ storage: 'ComplexFloatStorage' })), 'torch.ComplexFloatStorage'],
  ])('%s', async (_, value, name) => {
    for (const bytes of [
      torchArchive(pickle.dictionary({ x: value }), { '0': counting(6) }),
      legacyTorchFile(pickle.dictionary({ x: value }), {}),
    ]) {
      expect(await fault(bytes)).toMatchObject({
        code: 'checkpoint.unsafe-pickle',
        exitCode: 2,
        message: expect.stringContaining(name) as string,
      });
    }
  });

  it.each([
    ['an object made without its constructor (NEWOBJ)', '81'],
    ['an instance (INST)', '69'],
    ['an object (OBJ)', '6f'],
    ['an extension (EXT1)', '8201'],
  ])('%s', async (_, opcode) => {
    const bytes = torchArchive(Buffer.concat([Buffer.from('}('), Buffer.from(opcode, 'hex')]), {});
    expect((await fault(bytes)).message).toContain(`opcode 0x${opcode.slice(0, 2)}`);
  });
});

describe('a damaged file is refused', () => {
  const good = (): Buffer => torchArchive(pickle.dictionary({ x: pickledTensor(floats({})) }), { '0': counting(6) });
  const goodLegacy = (): Buffer =>
    legacyTorchFile(pickle.dictionary({ x: pickledTensor(floats({}), pickle.none) }), {
      '0': { count: 6, bytes: counting(6) },
    });

  it.each([
    ['no dictionary', torchArchive(pickle.list(), {}), 'no dictionary of tensors'],
    ['no tensor', torchArchive(pickle.dictionary({ epoch: pickle.int(3) }), {}), 'more than tensors: `epoch`'],
    [
      'a tensor beyond its storage',
      torchArchive(pickle.dictionary({ x: pickledTensor(floats({ offset: 1 })) }), { '0': counting(6) }),
      'reaches beyond its storage',
    ],
    [
      'a tensor larger than its storage',
      torchArchive(pickle.dictionary({ x: pickledTensor(floats({ shape: [9, 9], strides: [0, 0] })) }), {
        '0': counting(6),
      }),
      'reaches beyond its storage',
    ],
    ['a missing storage', torchArchive(pickle.dictionary({ x: pickledTensor(floats({})) }), {}), 'lacks the storage'],
    [
      'a short storage',
      torchArchive(pickle.dictionary({ x: pickledTensor(floats({})) }), { '0': counting(5) }),
      'has 20 bytes where it names 6 elements',
    ],
    ['two pickles', zip({ 'a/data.pkl': Buffer.from('.'), 'b/data.pkl': Buffer.from('.') }), '2 files data.pkl'],
    ['big-endian numbers', zip({ 'a/data.pkl': Buffer.from('.'), 'a/byteorder': Buffer.from('big') }), 'big-endian'],
    ['another format', Buffer.from('GGUF1234'), 'begins like no such file'],
    ['a pointer of Git LFS', Buffer.from('version https://git-lfs.github.com/spec/v1'), 'pointer of Git LFS'],
    ['nothing', Buffer.alloc(0), 'begins like no such file'],
  ])('%s', async (_, bytes, message) => {
    const error = await fault(bytes);
    expect(error).toMatchObject({ code: 'checkpoint.corrupt-torch-file', exitCode: 2 });
    expect(error.message).toContain(message);
  });

  it('wherever it is cut off', async () => {
    for (const whole of [good(), goodLegacy()]) {
      for (let length = 0; length < whole.length; length += 7) await fault(whole.subarray(0, length));
    }
  });

  it('or read as something else where a byte of it is changed, but never with another error', async () => {
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.nat(), fc.nat(255), async (isLegacy, position, value) => {
        const bytes = isLegacy ? goodLegacy() : good();
        bytes[position % bytes.length] = value;
        const error: unknown = await openTorchFile(await written(bytes)).catch((reason: unknown) => reason);
        expect(error instanceof Map || error instanceof UserError, String(error)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});
