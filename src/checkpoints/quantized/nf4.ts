import { UserError } from '../../errors.js';
import { fitsNf4, NF4_BLOCK, NF4_VALUES, nf4Names } from '../../nn/context.js';
import { requireTensors, type ModelFolder } from '../model-folder.js';
import { readFloats, type TensorInfo } from '../safetensors.js';
import type { TensorSource } from '../safetensors-writer.js';
import { bytesOf } from '../stored-dtype.js';
import { blockMaxima, nestScales, quantizeFourBit, scalesOf, type FourBitTensor } from './four-bit.js';
import { readFourBit, type StoredFourBit } from './stored-four-bit.js';
import { writePrepared } from './write-prepared.js';

/**
 * Writes the NF4 form of a model's matrices into a safetensors file, under the names that a graph asks for: the codes as
 * bitsandbytes keeps them, and a float32 scale a block, decoded where scales are nested. A matrix that the model stores in
 * NF4 keeps its own codes and scales; any other is quantised, scales included, as bitsandbytes does when it loads one. One
 * matrix is in memory at a time.
 *
 * @throws UserError where a matrix is stored in other 4 bits, which would be rounded twice
 */
export async function writeNf4(
  { weights, quantized, dir }: Pick<ModelFolder, 'weights' | 'quantized' | 'dir'>,
  names: Iterable<string>,
  file: string,
): Promise<void> {
  const matrices = requireTensors(weights, names).filter(({ name, shape }) => fitsNf4(name, shape as [number, number]));
  const sources = matrices.flatMap((info) => {
    const stored = quantized.get(info.name);
    if (stored === undefined) return sourcesOf(info, roundedParts(info));
    if (stored.kind !== 'nf4' || stored.blockSize !== NF4_BLOCK) throw otherFourBits(stored, dir);
    return sourcesOf(info, ownParts(stored, dir));
  });
  await writePrepared(file, sources, 'nf4');
}

/** What is written of a matrix; each is read or computed when its turn comes. */
interface Parts {
  absmax(): Promise<Float32Array>;
  codes(): Promise<Uint8Array>;
}

function roundedParts(info: TensorInfo): Parts {
  const read = async (): Promise<Float32Array> => (await readFloats(info)).data;
  return {
    absmax: async () => scalesOf({ scales: nestScales(blockMaxima(await read(), NF4_BLOCK)) }),
    codes: async () => quantizeFourBit(await read(), info.shape, { blockSize: NF4_BLOCK, nested: false }).packed,
  };
}

function ownParts(stored: StoredFourBit, dir: string): Parts {
  const read = async (): Promise<FourBitTensor> => {
    const tensor = await readFourBit(stored);
    if (NF4_VALUES.some((value, code) => tensor.values[code] !== Math.fround(value))) throw otherFourBits(stored, dir);
    return tensor;
  };
  return { absmax: async () => scalesOf(await read()), codes: async () => (await read()).packed };
}

function sourcesOf({ name, shape }: TensorInfo, parts: Parts): TensorSource[] {
  const entries = shape.reduce((product, size) => product * size, 1);
  const names = nf4Names(name);
  async function* absmax(): AsyncGenerator<Uint8Array> {
    yield bytesOf(await parts.absmax());
  }
  async function* codes(): AsyncGenerator<Uint8Array> {
    yield await parts.codes();
  }
  return [
    { name: names.absmax, dtype: 'F32', shape: [entries / NF4_BLOCK], bytes: absmax },
    { name: names.codes, dtype: 'U8', shape: [entries / 2], bytes: codes },
  ];
}

const otherFourBits = ({ name, kind, blockSize }: StoredFourBit, dir: string): UserError =>
  new UserError({
    code: 'model.other-four-bits',
    message: `\`${name}\` is stored in ${kind} in blocks of ${blockSize}; in NF4 in blocks of ${NF4_BLOCK} it would be rounded twice.`,
    where: dir,
    fix: 'Use quantization float32 or int8, or give the model that it was made from.',
  });
