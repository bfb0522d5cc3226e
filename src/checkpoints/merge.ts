import { resolve } from 'node:path';
import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import type { WeightDtype } from '../models/config/fields.js';
import { checkAdapter, loraTensorNames, openAdapter, adaptedModules, type AdapterFolder } from './adapter.js';
import { loraScale } from '../nn/context.js';
import { loraOf } from './adapter-config.js';
import type { WriteFile } from './files.js';
import { loadTensors, openModelFolder, type ModelFolder } from './model-folder.js';
import { readFloatRange, readFloats, type TensorInfo } from './safetensors.js';
import { sourceInDtype, sourceOfFile, type TensorSource } from './safetensors-writer.js';
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
  checkAdapter(adapter, model.weights);
  const scaling = loraScale(loraOf(adapter));
  const merged = new Map<string, TensorSource>();
  for (const module of adaptedModules(model.weights, adapter.config.targetModules)) {
    const weight = model.weights.get(`${module}.weight`)!;
    const names = loraTensorNames(module);
    const [a, b] = [adapter.weights.get(names.a)!, adapter.weights.get(names.b)!];
    merged.set(weight.name, mergedSource(weight, a, b, scaling, dtypeOf(weight, dtype)));
  }
  return Array.from(model.weights, ([name, info]) => merged.get(name) ?? unmerged(info, dtype));
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
  const tensors = await loadTensors(model.weights, names);
  for (const module of adaptedModules(model.weights, adapter.config.targetModules)) {
    const weight = tensors.get(`${module}.weight`);
    if (weight === undefined) continue;
    const { a, b } = loraTensorNames(module);
    const [loraA, loraB] = [await readFloats(adapter.weights.get(a)!), await readFloats(adapter.weights.get(b)!)];
    addLora(weight.data, 0, loraA, loraB, loraScale(loraOf(adapter)));
  }
  return tensors;
}

/**
 * Writes the model of `modelDir` with the adapter of `adapterDir` merged in, with its generation config and tokenizer.
 * In float16 and bfloat16 (which `keep` means for a model stored so) the sum is rounded, and the merged model answers
 * a little differently from model and adapter apart.
 */
export async function mergeAdapter(
  modelDir: string,
  adapterDir: string,
  outDir: string,
  options: { dtype?: MergeDtype; write?: WriteFile } = {},
): Promise<void> {
  const { dtype = 'keep', write } = options;
  if (resolve(outDir) === resolve(modelDir)) {
    throw new UserError({
      code: 'merge.same-folder',
      message: 'The merged model would overwrite the model that it is made from.',
      where: outDir,
      fix: 'Choose another output folder.',
    });
  }
  const model = await openModelFolder(modelDir);
  const adapter = await openAdapter(adapterDir);
  await writeCheckpoint(
    outDir,
    {
      json: dtype === 'keep' ? model.rawConfig : withDtype(model.rawConfig, dtype),
      sources: mergedSources(model, adapter, dtype),
      generationConfig: model.generationConfig,
      tokenizerFrom: modelDir,
    },
    write === undefined ? {} : { write },
  );
}

/** A `config.json` that names another dtype, under the keys it used. */
function withDtype(json: Readonly<Record<string, unknown>>, dtype: WeightDtype): Record<string, unknown> {
  const used = ['dtype', 'torch_dtype'].filter((key) => key in json);
  const keys = used.length > 0 ? used : ['dtype'];
  return { ...json, ...Object.fromEntries(keys.map((key) => [key, dtype])) };
}
