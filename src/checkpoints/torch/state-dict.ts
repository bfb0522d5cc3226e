import { z } from 'zod';
import { storedBytes, type StoredDtype } from '../stored-dtype.js';
import { PickleFault, type Named, type Pickled, type PickleHost } from './unpickle.js';

/** A run of elements in a file that PyTorch saved, by its key there. */
export class Storage {
  constructor(
    readonly key: string,
    readonly dtype: StoredDtype,
    /** Elements. */
    readonly size: number,
    /** Where it begins in the run of that key, in elements: old files have storages that are parts of others. */
    readonly start: number,
  ) {}
}

/** A view of a storage, all in elements. */
export class View {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

class ElementType {
  constructor(readonly dtype: StoredDtype) {}
}

const storageTypes: Readonly<Record<string, StoredDtype>> = {
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};

const natural = z.int().nonnegative();
const viewArguments = z.tuple([z.instanceof(Storage), natural, z.array(natural), z.array(natural)]).rest(z.unknown());
const orderedArguments = z.union([z.tuple([]), z.tuple([z.array(z.tuple([z.unknown(), z.unknown()]))])]);
const storageId = z.tuple([
  z.literal('storage'),
  z.union([z.instanceof(ElementType), z.object({ value: z.instanceof(ElementType) })]),
  z.string(),
  z.string(),
  natural,
]);
const viewMetadata = z.union([z.null(), z.tuple([z.string(), natural, natural])]);

function parse<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.infer<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new PickleFault(`it describes ${what} in a way that PyTorch does not`);
}

function viewOf(args: unknown): View {
  const [storage, offset, shape, strides] = parse(viewArguments, args, 'a tensor');
  if (shape.length !== strides.length) throw new PickleFault('it holds a tensor with more sizes than strides');
  const elements = shape.reduce((product, size) => product * size, 1);
  const last = shape.reduce((at, size, axis) => at + (size - 1) * strides[axis]!, offset);
  if (elements > 0 && (last >= storage.size || elements > storage.size)) {
    throw new PickleFault(`it holds a tensor (${shape.join(', ')}) that reaches beyond its storage of ${storage.size}`);
  }
  return new View(storage, offset, shape, strides);
}

function parameterOf(args: unknown): View {
  return parse(z.tuple([z.instanceof(View)]).rest(z.unknown()), args, 'a parameter')[0];
}

function orderedOf(args: unknown): Map<unknown, unknown> {
  const [pairs = []] = parse(orderedArguments, args, 'a dictionary');
  return new Map(pairs);
}

/** The whole of Python that a state dict may name. */
const allowed: ReadonlyMap<string, Named> = new Map<string, Named>([
  ['collections.OrderedDict', { call: orderedOf }],
  ['torch._utils._rebuild_tensor', { call: viewOf }],
  ['torch._utils._rebuild_tensor_v2', { call: viewOf }],
  ['torch._utils._rebuild_parameter', { call: parameterOf }],
  ...Object.entries(storageTypes).map(([name, dtype]): [string, Named] => [
    `torch.${name}`,
    { value: new ElementType(dtype) },
  ]),
]);

/** Understands what `torch.save` writes of a state dict: dictionaries, tensors, parameters, storages by their ids. */
export const stateDictHost: PickleHost = {
  allowed,
  persistent: (id) => {
    const parts: readonly unknown[] = Array.isArray(id) ? id : [];
    const [view, ...fields] = parts.length === 6 ? [parts[5], ...parts.slice(0, 5)] : [null, ...parts];
    const [, type, key, , size] = parse(storageId, fields, 'a storage');
    const { dtype } = type instanceof ElementType ? type : type.value;
    const part = parse(viewMetadata, view, 'a storage');
    return part === null ? new Storage(key, dtype, size, 0) : new Storage(key, dtype, part[2], part[1]);
  },
};

/** The tensors of a state dict by their names, in its order. */
export function tensorsOf(root: Pickled): ReadonlyMap<string, View> {
  if (!(root instanceof Map)) throw new PickleFault('it holds no dictionary of tensors');
  const tensors = new Map<string, View>();
  for (const [name, value] of root as Map<unknown, unknown>) {
    if (typeof name !== 'string' || !(value instanceof View)) {
      throw new PickleFault(`it holds more than tensors: \`${String(name)}\``);
    }
    tensors.set(name, value);
  }
  return tensors;
}

/** Bytes of a view's storage that come before it. */
export const byteOffset = ({ storage, offset }: View): number => (storage.start + offset) * storedBytes(storage.dtype);
