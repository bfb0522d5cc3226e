import { basename, join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import { parseJsonFields } from '../models/config/fields.js';
import { converted } from './converted.js';
import { readJsonObject } from './files.js';
import { listed } from './listed.js';
import { dequantizedSource, findFourBit, type StoredFourBit } from './quantized/stored-four-bit.js';
import { readHeader, type TensorInfo } from './safetensors.js';
import { inPlace, sourceOfStrided, type StridedTensor } from './strided.js';
import { openTorchFile } from './torch/torch-file.js';

/** A form that weights come in: one file, or shards with an index that says which tensor is in which. */
interface Form {
  readonly single: string;
  readonly index: string;
  readonly shard: RegExp;
  readonly open: (file: string) => Promise<ReadonlyMap<string, StridedTensor | TensorInfo>>;
}

/** In the order of preference. */
const forms: readonly Form[] = [
  {
    single: 'model.safetensors',
    index: 'model.safetensors.index.json',
    shard: /^[^/\\]+\.safetensors$/,
    open: async (file) => (await readHeader(file)).tensors,
  },
  {
    single: 'pytorch_model.bin',
    index: 'pytorch_model.bin.index.json',
    shard: /^[^/\\]+\.bin$/,
    open: openTorchFile,
  },
];

/** Weights, each where it can be read in place. */
export interface OpenedWeights {
  /** By their names; those that are stored in 4 bits as float32. */
  readonly weights: ReadonlyMap<string, TensorInfo>;
  /** Those that are stored in 4 bits, as they are stored. */
  readonly quantized: ReadonlyMap<string, StoredFourBit>;
}

/**
 * Where the weights of a model folder lie. What cannot be read where it lies is converted first, one tensor at a time.
 *
 * @param files names of the folder's files
 * @throws UserError when there are none, a file is damaged, or an index and its shards do not fit together
 */
export async function openWeights(dir: string, files: ReadonlySet<string>): Promise<OpenedWeights> {
  const form = forms.find(({ single, index }) => files.has(single) || files.has(index));
  if (form === undefined) throw noWeights(dir, files);
  const tensors = files.has(form.single) ? await form.open(join(dir, form.single)) : await openShards(form, dir, files);
  const { quantized, others } = await findFourBit(await readableInPlace(tensors));
  const dequantized = await converted(
    Array.from(quantized.values(), dequantizedSource),
    Array.from(quantized.values(), ({ packed, absmax }) => [packed.file, absmax.file]).flat(),
    'float32',
  );
  return { weights: new Map([...others, ...dequantized]), quantized };
}

async function readableInPlace(
  tensors: ReadonlyMap<string, StridedTensor | TensorInfo>,
): Promise<ReadonlyMap<string, TensorInfo>> {
  const found = new Map<string, TensorInfo | undefined>();
  const elsewhere: StridedTensor[] = [];
  for (const [name, tensor] of tensors) {
    const info = 'strides' in tensor ? inPlace(tensor) : tensor;
    found.set(name, info);
    if (info === undefined) elsewhere.push(tensor as StridedTensor);
  }
  const moved = await converted(
    elsewhere.map(sourceOfStrided),
    elsewhere.map(({ file }) => file),
    'row-major order',
  );
  return new Map(Array.from(found, ([name, info]) => [name, info ?? moved.get(name)!]));
}

const indexSchema = (shard: RegExp) => z.object({ weight_map: z.record(z.string(), z.string().regex(shard)) });

async function openShards(
  form: Form,
  dir: string,
  files: ReadonlySet<string>,
): Promise<ReadonlyMap<string, StridedTensor | TensorInfo>> {
  const where = join(dir, form.index);
  const index = parseJsonFields(indexSchema(form.shard), await readJsonObject(where), where);
  const shardOf = new Map(Object.entries(index.weight_map));
  const shards = [...new Set(shardOf.values())].sort();
  const absent = shards.filter((shard) => !files.has(shard));
  if (absent.length > 0) throw indexMismatch(where, `it names ${listed(absent)}, which the folder lacks`);

  const weights = new Map<string, StridedTensor | TensorInfo>();
  for (const shard of shards) {
    for (const [name, info] of await form.open(join(dir, shard))) {
      if (shardOf.get(name) !== shard) {
        throw indexMismatch(where, `${shard} holds \`${name}\`, which the index ${whereIndexHas(shardOf.get(name))}`);
      }
      weights.set(name, info);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!weights.has(name)) throw indexMismatch(where, `${shard} lacks \`${name}\`, which the index puts there`);
  }
  return weights;
}

const whereIndexHas = (shard: string | undefined): string =>
  shard === undefined ? 'does not name' : `puts in ${shard}`;

const indexMismatch = (where: string, what: string): UserError =>
  new UserError({
    code: 'model.index-mismatch',
    message: `The index and the shards of the model do not fit together: ${what}.`,
    where,
    fix: 'Copy or download the whole folder again.',
  });

function noWeights(dir: string, files: ReadonlySet<string>): UserError {
  const other = [...files].find((file) => /\.(bin|pth?|gguf|h5|msgpack|onnx)$/.test(file));
  return new UserError({
    code: 'model.no-weights',
    message: `The model folder has neither model.safetensors nor pytorch_model.bin${other === undefined ? '' : `; weights as in ${basename(other)} are not read by this version`}.`,
    where: dir,
    fix: 'Give a folder with weights in one of these forms.',
  });
}
