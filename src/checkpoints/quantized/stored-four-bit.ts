import { z } from 'zod';
import { UserError } from '../../errors.js';
import { parseJsonFields } from '../../models/config/fields.js';
import { readTensor, type TensorInfo } from '../safetensors.js';
import type { TensorSource } from '../safetensors-writer.js';
import { bytesOf, type StoredDtype } from '../stored-dtype.js';
import { dequantizeFourBit, scalesOf, type FourBitTensor } from './four-bit.js';

/** Where the parts of a weight in 4 bits lie, under the names that bitsandbytes gives them. */
export interface StoredFourBit {
  readonly name: string;
  readonly kind: FourBitTensor['kind'];
  readonly shape: readonly number[];
  /** Values a block. */
  readonly blockSize: number;
  /** The dtype of the weight before, by its name in PyTorch. */
  readonly dtype: string;
  /** Two codes a byte, in any dtype: the bytes count. */
  readonly packed: TensorInfo;
  /** A float32 a block, or a code where scales are nested. */
  readonly absmax: TensorInfo;
  /** What the 16 codes stand for. */
  readonly values: TensorInfo;
  readonly nested?: {
    readonly absmax: TensorInfo;
    /** What the 256 codes of scales stand for. */
    readonly values: TensorInfo;
    /** Scales a block. */
    readonly blockSize: number;
    readonly offset: number;
  };
}

const count = z.int().positive();
const stateSchema = z.looseObject({
  quant_type: z.enum(['nf4', 'fp4']),
  blocksize: count,
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()),
  nested_blocksize: count.optional(),
  nested_dtype: z.literal('float32').optional(),
  nested_offset: z.number().optional(),
});

const stateName = /^(?<weight>.+)\.quant_state\.bitsandbytes__(nf4|fp4)$/;
const elementsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/**
 * The weights in 4 bits among the tensors of a checkpoint, and the tensors that are no part of one.
 *
 * @throws UserError when a part is missing, or is not as long as the others imply
 */
export async function findFourBit(tensors: ReadonlyMap<string, TensorInfo>): Promise<{
  readonly quantized: ReadonlyMap<string, StoredFourBit>;
  readonly others: ReadonlyMap<string, TensorInfo>;
}> {
  const quantized = new Map<string, StoredFourBit>();
  const parts = new Set<string>();
  for (const [name, info] of tensors) {
    const weight = stateName.exec(name)?.groups?.['weight'];
    if (weight === undefined) continue;
    const take = (part: string, dtypes?: readonly StoredDtype[]): TensorInfo => {
      const full = `${weight}${part}`;
      const found = tensors.get(full);
      if (found === undefined) throw broken(info, `it has no \`${full}\``);
      if (dtypes?.includes(found.dtype) === false) throw broken(info, `\`${full}\` is of dtype ${found.dtype}`);
      parts.add(full);
      return found;
    };
    parts.add(name);
    quantized.set(weight, await storedFourBit(weight, info, take));
  }
  return { quantized, others: new Map([...tensors].filter(([name]) => !parts.has(name))) };
}

async function storedFourBit(
  name: string,
  info: TensorInfo,
  take: (part: string, dtypes?: readonly StoredDtype[]) => TensorInfo,
): Promise<StoredFourBit> {
  const state = await readState(info);
  const { nested_blocksize: nestedBlockSize, nested_offset: offset = 0 } = state;
  const isNested = nestedBlockSize !== undefined;
  const stored: StoredFourBit = {
    name,
    kind: state.quant_type,
    shape: state.shape,
    blockSize: state.blocksize,
    dtype: state.dtype,
    packed: take(''),
    absmax: take('.absmax', [isNested ? 'U8' : 'F32']),
    values: take('.quant_map', ['F32']),
    ...(isNested && {
      nested: {
        absmax: take('.nested_absmax', ['F32']),
        values: take('.nested_quant_map', ['F32']),
        blockSize: nestedBlockSize,
        offset,
      },
    }),
  };
  const values = elementsOf(stored.shape);
  const blocks = Math.ceil(values / stored.blockSize);
  const needed: [TensorInfo, number][] = [
    [stored.packed, Math.ceil(values / 2)],
    [stored.absmax, blocks * (isNested ? 1 : 4)],
    [stored.values, 16 * 4],
  ];
  if (stored.nested !== undefined) {
    needed.push(
      [stored.nested.absmax, Math.ceil(blocks / stored.nested.blockSize) * 4],
      [stored.nested.values, 256 * 4],
    );
  }
  const wrong = needed.find(([{ length }, bytes]) => length !== bytes);
  if (wrong !== undefined) {
    throw broken(info, `\`${wrong[0].name}\` has ${wrong[0].length} bytes where ${wrong[1]} belong`);
  }
  return stored;
}

async function readState(info: TensorInfo): Promise<z.infer<typeof stateSchema>> {
  const text = Buffer.from(bytesOf(await readTensor(info))).toString('utf8');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw broken(info, 'it is not JSON');
  }
  return parseJsonFields(stateSchema, json, `${info.file}: ${info.name}`);
}

const broken = ({ name, file }: TensorInfo, what: string): UserError =>
  new UserError({
    code: 'checkpoint.broken-quantization',
    message: `The 4-bit weight that \`${name}\` describes is not whole: ${what}.`,
    where: file,
    fix: 'Copy or download the model again.',
  });

const asFloats = async (info: TensorInfo): Promise<Float32Array> => (await readTensor(info)) as Float32Array;
const asBytes = async (info: TensorInfo): Promise<Uint8Array> => bytesOf(await readTensor(info));

/** Reads a weight in 4 bits, as it is. */
export async function readFourBit(stored: StoredFourBit): Promise<FourBitTensor> {
  const { kind, shape, blockSize, nested } = stored;
  return {
    kind,
    shape,
    blockSize,
    packed: await asBytes(stored.packed),
    values: await asFloats(stored.values),
    scales:
      nested === undefined
        ? await asFloats(stored.absmax)
        : {
            codes: await asBytes(stored.absmax),
            values: await asFloats(nested.values),
            absmax: await asFloats(nested.absmax),
            blockSize: nested.blockSize,
            offset: nested.offset,
          },
  };
}

/** Values dequantised at a time. */
const atATime = 1 << 20;

/** A weight in 4 bits as float32. */
export const dequantizedSource = (stored: StoredFourBit): TensorSource => ({
  name: stored.name,
  dtype: 'F32',
  shape: stored.shape,
  async *bytes() {
    const tensor = await readFourBit(stored);
    const scales = scalesOf(tensor);
    const values = elementsOf(stored.shape);
    for (let start = 0; start < values; start += atATime) {
      yield bytesOf(dequantizeFourBit(tensor, { start, count: Math.min(atATime, values - start), scales }));
    }
  },
});
