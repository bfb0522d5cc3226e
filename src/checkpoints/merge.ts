import { resolve } from 'node:path';
import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import type { WeightDtype } from '../models/config/fields.js';
import {
  adaptedModules,
  checkAdapter,
  loraTensorNames,
  openAdapter,
  savedTensors,
  type AdapterFolder,
} from './adapter.js';
import { loraScale } from '../nn/context.js';
import { loraOf } from './adapter-config.js';
import type { WriteFile } from './files.js';
import { loadTensors, openModelFolder, type ModelFolder } from './model-folder.js';
import { quantizationConfigToHuggingFace, type BitsAndBytesConfig } from './quantized/quantization-config.js';
import { blockModules, fourBitSources } from './quantized/write-four-bit.js';
import { readFloatRange, readFloats, type TensorInfo } from './safetensors.js';
import { byteLength, sourceInDtype, sourceOfFile, type TensorSource } from './safetensors-writer.js';
import { encodeFloats, isFloat, type FloatDtype } from './stored-dtype.js';
import { storedDtypeOf, writeCheckpoint } from './write-model-folder.js';

/** Elements of a weight that are merged at a time. */
const blockElements = 1 << 20;

/**
 * W + scaling · B·A for consecutive rows of W, in place. The products are summed in float64 and rounded once.
 *
 * @param rows W from row `firstRow` on, (rows, in)
 * @param a (r, in)
 * @param b (out, r), whole
 */
export function addLora(
  rows: Float32Array,
  firstRow: number,
  a: Tensor<'float32'>,
  b: Tensor<'float32'>,
  scaling: number,
): void {
  const [rank, input] = a.shape as [number, number];
  const delta = new Float64Array(input);
  for (let row = 0; row * input < rows.length; row++) {
    delta.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = b.data[(firstRow + row) * rank + k]!;
      const start = k * input;
      for (let j = 0; j < input; j++) delta[j]! += factor * a.data[start + j]!;
    }
    const start = row * input;
    for (let j = 0; j < input; j++) rows[start + j] = rows[start + j]! + scaling * delta[j]!;
  }
}

/** What merged weights are stored as: one dtype for all, or each tensor's own. */
export type MergeDtype = WeightDtype | 'keep';

/** How a tensor of the model comes out of a merge. */
interface Merged {
  /** In the model; a tensor that the adapter holds whole lies in the adapter. */
  readonly info: TensorInfo;
  /** A and B, where the adapter changes it. */
  readonly factors?: readonly [TensorInfo, TensorInfo];
}

function mergedTensors({ weights }: Pick<ModelFolder, 'weights'>, adapter: AdapterFolder): Map<string, Merged> {
  checkAdapter(adapter, weights);
  const merged = new Map<string, Merged>();
  for (const [name, info] of [...weights, ...savedTensors(adapter)]) merged.set(name, { info });
  for (const module of adaptedModules(weights, adapter.config)) {
    const info = weights.get(`${module}.weight`)!;
    const names = loraTensorNames(module);
    merged.set(info.name, { info, factors: [adapter.weights.get(names.a)!, adapter.weights.get(names.b)!] });
  }
  return merged;
}

/**
 * The tensors of a model with an adapter merged in, computed block by block as they are read.
 *
 * @throws UserError when the adapter belongs to another model
 */
export function mergedSources(
  model: Pick<ModelFolder, 'weights'>,
  adapter: AdapterFolder,
  dtype: MergeDtype = 'keep',
): TensorSource[] {
  const scaling = loraScale(loraOf(adapter));
  return Array.from(mergedTensors(model, adapter).values(), ({ info, factors }) =>
    factors === undefined ? unmerged(info, dtype) : mergedSource(info, ...factors, scaling, dtypeOf(info, dtype)),
  );
}

const dtypeOf = (weight: TensorInfo, dtype: MergeDtype): FloatDtype => {
  if (dtype !== 'keep') return storedDtypeOf[dtype];
  return isFloat(weight.dtype) ? weight.dtype : 'F32';
};

const unmerged = (info: TensorInfo, dtype: MergeDtype): TensorSource =>
  dtype === 'keep' ? sourceOfFile(info) : sourceInDtype(info, storedDtypeOf[dtype]);

function mergedSource(
  weight: TensorInfo,
  a: TensorInfo,
  b: TensorInfo,
  scaling: number,
  dtype: FloatDtype,
): TensorSource {
  const [out, input] = weight.shape as [number, number];
  const rowsAtATime = Math.max(1, Math.floor(blockElements / input));
  return {
    name: weight.name,
    dtype,
    shape: weight.shape,
    async *bytes() {
      const [loraA, loraB] = [await readFloats(a), await readFloats(b)];
      for (let row = 0; row < out; row += rowsAtATime) {
        const rows = await readFloatRange(weight, row * input, Math.min(rowsAtATime, out - row) * input);
        addLora(rows, row, loraA, loraB, scaling);
        yield encodeFloats(dtype, rows);
      }
    },
  };
}

/**
 * The named tensors of a model as float32, with an adapter merged into those it adapts.
 *
 * @throws UserError when the adapter belongs to another model, or a name is missing
 */
export async function loadMergedTensors(
  model: Pick<ModelFolder, 'weights'>,
  adapter: AdapterFolder,
  names: Iterable<string>,
): Promise<Map<string, Tensor<'float32'>>> {
  checkAdapter(adapter, model.weights);
  const tensors = await loadTensors(new Map([...model.weights, ...savedTensors(adapter)]), names);
  for (const module of adaptedModules(model.weights, adapter.config)) {
    const weight = tensors.get(`${module}.weight`);
    if (weight === undefined) continue;
    const { a, b } = loraTensorNames(module);
    const [loraA, loraB] = [await readFloats(adapter.weights.get(a)!), await readFloats(adapter.weights.get(b)!)];
    addLora(weight.data, 0, loraA, loraB, loraScale(loraOf(adapter)));
  }
  return tensors;
}

export interface MergeOptions {
  /** Default `keep`; of a model in 4 bits that is the dtype that its config names. */
  readonly dtype?: MergeDtype;
  /** Quantises the linear layers of the blocks again, as bitsandbytes does. */
  readonly quantization?: BitsAndBytesConfig;
  readonly write?: WriteFile;
}

/**
 * Writes the model of `modelDir` with the adapter of `adapterDir` merged in, with its generation config and tokenizer.
 * A model in 4 bits is merged as it computes, dequantised. In float16 and bfloat16 (which `keep` means for a model
 * stored so) and in 4 bits the sum is rounded, and the merged model answers a little differently from model and adapter
 * apart.
 */
export async function mergeAdapter(
  modelDir: string,
  adapterDir: string,
  outDir: string,
  options: MergeOptions = {},
): Promise<void> {
  if (resolve(outDir) === resolve(modelDir)) throw sameFolder(outDir);
  const model = await openModelFolder(modelDir);
  await writeModel(model, await openAdapter(adapterDir), outDir, options);
}

/** Bytes of the weights that such a merge writes; of one into 4 bits 0, as they depend on what is rounded. */
export async function mergedBytes(
  modelDir: string,
  adapterDir: string,
  { dtype = 'keep', quantization }: Pick<MergeOptions, 'dtype' | 'quantization'>,
): Promise<number> {
  if (quantization !== undefined) return 0;
  const model = await openModelFolder(modelDir);
  const sources = mergedSources(model, await openAdapter(adapterDir), writtenDtype(model, dtype, quantization));
  return sources.reduce((sum, source) => sum + byteLength(source), 0);
}

/** Writes the model of `modelDir` in 4 bits, as a bitsandbytes checkpoint: the linear layers of its blocks. */
export async function quantizeModel(
  modelDir: string,
  outDir: string,
  quantization: BitsAndBytesConfig,
  options: Omit<MergeOptions, 'quantization'> = {},
): Promise<void> {
  if (resolve(outDir) === resolve(modelDir)) throw sameFolder(outDir);
  await writeModel(await openModelFolder(modelDir), undefined, outDir, { ...options, quantization });
}

async function writeModel(
  model: ModelFolder,
  adapter: AdapterFolder | undefined,
  outDir: string,
  { dtype: given = 'keep', quantization, write }: MergeOptions,
): Promise<void> {
  const dtype = writtenDtype(model, given, quantization);
  const whole =
    adapter === undefined
      ? Array.from(model.weights.values(), (info) => unmerged(info, dtype))
      : mergedSources(model, adapter, dtype);
  const json = dtype === 'keep' ? model.rawConfig : withDtype(model.rawConfig, dtype);
  await writeCheckpoint(
    outDir,
    {
      json: withQuantization(json, quantization),
      sources:
        quantization === undefined || dtype === 'keep'
          ? whole
          : await quantizedSources(model, adapter, whole, quantization, dtype),
      generationConfig: model.generationConfig,
      tokenizerFrom: model.dir,
    },
    write === undefined ? {} : { write },
  );
}

/** What the weights of a merge are rounded to: of a model in 4 bits, or into them, `keep` means the config's dtype. */
const writtenDtype = (
  { quantized, config }: ModelFolder,
  dtype: MergeDtype,
  quantization: BitsAndBytesConfig | undefined,
): MergeDtype => (dtype === 'keep' && (quantized.size > 0 || quantization !== undefined) ? config.dtype : dtype);

/** The same sources, but those of the blocks' linear layers in 4 bits. */
async function quantizedSources(
  model: ModelFolder,
  adapter: AdapterFolder | undefined,
  whole: readonly TensorSource[],
  quantization: BitsAndBytesConfig,
  dtype: WeightDtype,
): Promise<TensorSource[]> {
  const names = blockModules(model.weights).map((module) => `${module}.weight`);
  const chosen = new Set(names);
  const sources = whole.filter(({ name }) => !chosen.has(name));
  for (const name of names) {
    const { shape } = model.weights.get(name)!;
    const read = async (): Promise<Float32Array> => {
      const tensors =
        adapter === undefined
          ? await loadTensors(model.weights, [name])
          : await loadMergedTensors(model, adapter, [name]);
      return tensors.get(name)!.data;
    };
    sources.push(...(await fourBitSources({ name, shape, read }, quantization, dtype)));
  }
  return sources;
}

const sameFolder = (outDir: string): UserError =>
  new UserError({
    code: 'merge.same-folder',
    message: 'The new model would overwrite the model that it is made from.',
    where: outDir,
    fix: 'Choose another output folder.',
  });

/** A `config.json` that names another dtype, under the keys it used. */
function withDtype(json: Readonly<Record<string, unknown>>, dtype: WeightDtype): Record<string, unknown> {
  const used = ['dtype', 'torch_dtype'].filter((key) => key in json);
  const keys = used.length > 0 ? used : ['dtype'];
  return { ...json, ...Object.fromEntries(keys.map((key) => [key, dtype])) };
}

function withQuantization(
  json: Readonly<Record<string, unknown>>,
  quantization: BitsAndBytesConfig | undefined,
): Record<string, unknown> {
  const others = Object.entries(json).filter(([key]) => key !== 'quantization_config');
  const given =
    quantization === undefined ? [] : [['quantization_config', quantizationConfigToHuggingFace(quantization)]];
  return Object.fromEntries([...others, ...given]) as Record<string, unknown>;
}
