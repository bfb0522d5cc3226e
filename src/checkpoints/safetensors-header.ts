import { z } from 'zod';
import { UserError } from '../errors.js';
import { duplicateKey } from './duplicate-key.js';
import { storedBytes, storedDtypes, storedDtypeSchema, type StoredDtype } from './stored-dtype.js';

/** Where one tensor lies in a safetensors file. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly file: string;
  /** Absolute offset in the file, in bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

export interface SafetensorsHeader {
  readonly file: string;
  /** In the order of their data. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Absolute offset of the data part, in bytes. */
  readonly dataStart: number;
}

/** The reference library refuses longer headers, too. */
export const headerCap = 100_000_000;

const dimension = z.int().nonnegative();
const entrySchema = z.strictObject({
  dtype: storedDtypeSchema,
  shape: z.array(dimension),
  data_offsets: z.tuple([dimension, dimension]),
});
const metadataSchema = z.array(z.tuple([z.string(), z.string()]));
const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Parses the JSON header of a safetensors file and checks that the tensors fill the data part exactly: no overlap, no
 * hole, every length equal to what dtype and shape say.
 *
 * @param dataStart absolute offset of the data part
 * @param fileSize in bytes
 * @throws UserError naming the file and the tensor
 */
export function parseHeader(file: string, json: Uint8Array, dataStart: number, fileSize: number): SafetensorsHeader {
  const { __metadata__: rawMetadata = {}, ...entries } = parseJson(file, json);
  const metadata = metadataSchema.safeParse(isObject(rawMetadata) ? Object.entries(rawMetadata) : rawMetadata);
  if (!metadata.success) throw corrupt(file, '`__metadata__` must hold strings only');
  const dataSize = fileSize - dataStart;
  const tensors = Object.entries(entries).map(([name, entry]) => tensorInfo(file, name, entry, dataStart, dataSize));
  tensors.sort((a, b) => a.offset - b.offset || a.length - b.length);
  checkFilled(file, tensors, dataStart, fileSize);
  return {
    file,
    tensors: new Map(tensors.map((info) => [info.name, info])),
    metadata: Object.fromEntries(metadata.data),
    dataStart,
  };
}

function parseJson(file: string, bytes: Uint8Array): Record<string, unknown> {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    throw corrupt(file, `its header is not JSON in UTF-8 (${(error as Error).message})`);
  }
  if (!text.startsWith('{') || typeof value !== 'object' || value === null) {
    throw corrupt(file, 'its header is not a JSON object');
  }
  const twice = duplicateKey(text);
  if (twice !== undefined) throw corrupt(file, `its header names \`${twice}\` twice`);
  return value as Record<string, unknown>;
}

function tensorInfo(file: string, name: string, entry: unknown, dataStart: number, dataSize: number): TensorInfo {
  const parsed = entrySchema.safeParse(entry);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue?.path.join('.') ?? '';
    if (field === 'dtype') throw unknownDtype(file, name, (entry as { readonly dtype?: unknown }).dtype);
    throw corrupt(file, `tensor \`${name}\`${field && `, ${field}`}: ${issue?.message ?? 'not understood'}`);
  }
  const { dtype, shape, data_offsets: range } = parsed.data;
  const [begin, end] = range;
  if (begin > end || end > dataSize) {
    throw corrupt(file, `tensor \`${name}\` lies at bytes ${begin} to ${end} of a data part of ${dataSize} bytes`);
  }
  const expected = shape.reduce((product, size) => product * size, storedBytes(dtype));
  if (expected !== end - begin) {
    throw corrupt(
      file,
      `tensor \`${name}\`, ${dtype} of shape (${shape.join(', ')}), needs ${expected} bytes but has ${end - begin}`,
    );
  }
  return { name, dtype, shape, file, offset: dataStart + begin, length: end - begin };
}

function checkFilled(file: string, tensors: readonly TensorInfo[], dataStart: number, fileSize: number): void {
  let filled = dataStart;
  let previous: string | undefined;
  for (const { name, offset, length } of tensors) {
    if (offset < filled) throw corrupt(file, `tensors \`${previous ?? ''}\` and \`${name}\` overlap`);
    if (offset > filled) throw corrupt(file, `${offset - filled} bytes before tensor \`${name}\` belong to no tensor`);
    filled = offset + length;
    previous = name;
  }
  if (filled !== fileSize) throw corrupt(file, `its last ${fileSize - filled} bytes belong to no tensor`);
}

const unknownDtype = (file: string, name: string, dtype: unknown): UserError =>
  new UserError({
    code: 'checkpoint.unknown-dtype',
    message: `Tensor \`${name}\` is stored as ${JSON.stringify(dtype ?? null).slice(0, 80)}, which is not read. Known are ${storedDtypes.join(', ')}.`,
    where: file,
    fix: 'Give the model in float32, float16 or bfloat16, or as a bitsandbytes checkpoint in 4 bits.',
  });

/** A UserError that says what is wrong with a safetensors file. */
export const corrupt = (file: string, what: string): UserError =>
  new UserError({
    code: 'checkpoint.corrupt-safetensors',
    message: `This is not a whole .safetensors file: ${what.length > 300 ? `${what.slice(0, 300)}…` : what}.`,
    where: file,
    fix: 'Copy or download the file again; if it is the original, it was written wrongly.',
  });
