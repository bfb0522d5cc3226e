import { crc32 } from 'node:zlib';

/** Parts of pickles of protocol 2, as `torch.save` writes them. */
export const pickle = {
  text: (value: string): Buffer => {
    const bytes = Buffer.from(value, 'utf8');
    return Buffer.concat([Buffer.from('X'), uint32(bytes.length), bytes]);
  },
  int: (value: number): Buffer => Buffer.concat([Buffer.from('J'), int32(value)]),
  global: (module: string, name: string): Buffer => Buffer.from(`c${module}\n${name}\n`),
  tuple: (...items: Buffer[]): Buffer => Buffer.concat([Buffer.from('('), ...items, Buffer.from('t')]),
  call: (callee: Buffer, ...args: Buffer[]): Buffer => Buffer.concat([callee, pickle.tuple(...args), Buffer.from('R')]),
  dictionary: (items: Readonly<Record<string, Buffer>>): Buffer =>
    Buffer.concat([
      Buffer.from('}('),
      ...Object.entries(items).flatMap(([name, value]) => [pickle.text(name), value]),
      Buffer.from('u'),
    ]),
  list: (...items: Buffer[]): Buffer => Buffer.concat([Buffer.from(']('), ...items, Buffer.from('e')]),
  none: Buffer.from('N'),
  whole: (value: Buffer): Buffer => Buffer.concat([Buffer.from([0x80, 2]), value, Buffer.from('.')]),
};

export interface PickledTensor {
  /** For example `FloatStorage`. */
  readonly storage: string;
  readonly key: string;
  /** Elements of the storage. */
  readonly size: number;
  readonly offset?: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** A tensor as its pickle rebuilds it. */
export const pickledTensor = (
  { storage, key, size, offset = 0, shape, strides }: PickledTensor,
  ...idTail: Buffer[]
): Buffer =>
  pickle.call(
    pickle.global('torch._utils', '_rebuild_tensor_v2'),
    Buffer.concat([
      pickle.tuple(
        pickle.text('storage'),
        pickle.global('torch', storage),
        pickle.text(key),
        pickle.text('cpu'),
        pickle.int(size),
        ...idTail,
      ),
      Buffer.from('Q'),
    ]),
    pickle.int(offset),
    pickle.tuple(...shape.map(pickle.int)),
    pickle.tuple(...strides.map(pickle.int)),
    Buffer.from([0x89]),
    pickle.call(pickle.global('collections', 'OrderedDict')),
  );

/** A file as PyTorch writes it since 1.6: an archive of the pickle and one file a storage. */
export const torchArchive = (root: Buffer, storages: Readonly<Record<string, Uint8Array>>): Buffer =>
  zip({
    'archive/data.pkl': pickle.whole(root),
    'archive/byteorder': Buffer.from('little'),
    ...Object.fromEntries(Object.entries(storages).map(([key, bytes]) => [`archive/data/${key}`, bytes])),
    'archive/version': Buffer.from('3\n'),
  });

/** A file as older versions wrote it. */
export const legacyTorchFile = (
  root: Buffer,
  storages: Readonly<Record<string, { readonly count: number; readonly bytes: Uint8Array }>>,
): Buffer =>
  Buffer.concat([
    Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex'),
    Buffer.from('80024de9032e', 'hex'),
    pickle.whole(pickle.dictionary({ little_endian: Buffer.from([0x88]) })),
    pickle.whole(root),
    pickle.whole(pickle.list(...Object.keys(storages).map(pickle.text))),
    ...Object.values(storages).flatMap(({ count, bytes }) => [uint64(count), bytes]),
  ]);

/** A zip archive of stored files. */
export function zip(files: Readonly<Record<string, Uint8Array>>): Buffer {
  const locals: Buffer[] = [];
  const central: Buffer[] = [];
  let offset = 0;
  for (const [name, bytes] of Object.entries(files)) {
    const title = Buffer.from(name, 'utf8');
    const common = Buffer.concat([
      Buffer.from('14000000000000000000', 'hex'),
      uint32(crc32(bytes)),
      uint32(bytes.length),
      uint32(bytes.length),
      uint32(title.length),
    ]);
    const local = Buffer.concat([Buffer.from('PK\u0003\u0004'), common, title, bytes]);
    central.push(
      Buffer.concat([
        Buffer.from('PK\u0001\u0002'),
        Buffer.from('1400', 'hex'),
        common,
        Buffer.alloc(10),
        uint32(offset),
        title,
      ]),
    );
    locals.push(local);
    offset += local.length;
  }
  const directory = Buffer.concat(central);
  const count = Buffer.alloc(4);
  count.writeUInt16LE(central.length, 0);
  count.writeUInt16LE(central.length, 2);
  const end = Buffer.concat([
    Buffer.from('PK\u0005\u0006'),
    Buffer.alloc(4),
    count,
    uint32(directory.length),
    uint32(offset),
    Buffer.alloc(2),
  ]);
  return Buffer.concat([...locals, directory, end]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
