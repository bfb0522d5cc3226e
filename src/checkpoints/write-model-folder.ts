import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tensor } from '../graph/tensor.js';
import type { WeightDtype } from '../models/config/fields.js';
import { toHuggingFaceConfig, type ModelConfig } from '../models/config/model-config.js';
import { copyThrough, explainFileError, jsonChunks, writeDirectly, type WriteFile } from './files.js';
import { sourceOfFloats, writeSafetensors, type FloatsElsewhere, type TensorSource } from './safetensors-writer.js';
import type { FloatDtype } from './stored-dtype.js';
import { TOKENIZER_FILES } from './tokenizer-file-names.js';

/** Names of weight dtypes in a `config.json`, as a safetensors file has them. */
export const storedDtypeOf: Readonly<Record<WeightDtype, FloatDtype>> = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
};

/** A model whose weights are in memory, here or elsewhere. */
export interface ModelToWrite {
  readonly config: ModelConfig;
  /** By their Hugging Face names. */
  readonly tensors: ReadonlyMap<string, Tensor<'float32'> | FloatsElsewhere>;
  /** What the weights are rounded to, and what `config.json` then names; the config's own by default. */
  readonly dtype?: WeightDtype;
  readonly generationConfig?: Readonly<Record<string, unknown>>;
  /** A folder whose tokenizer files are copied. */
  readonly tokenizerFrom?: string;
}

/** Writes a model folder that `openModelFolder` and transformers read. */
export async function writeModelFolder(
  dir: string,
  model: ModelToWrite,
  options: { write?: WriteFile } = {},
): Promise<void> {
  const dtype = model.dtype ?? model.config.dtype;
  const sources = Array.from(model.tensors, ([name, tensor]) => sourceOfFloats(name, tensor, storedDtypeOf[dtype]));
  const json = toHuggingFaceConfig({ ...model.config, dtype });
  await writeCheckpoint(dir, { ...model, json, sources }, options);
}

/** The files of a model folder: the weights as sources, `config.json` as it is to stand. It is written last. */
export async function writeCheckpoint(
  dir: string,
  files: {
    readonly json: Readonly<Record<string, unknown>>;
    readonly sources: Iterable<TensorSource>;
    readonly generationConfig?: Readonly<Record<string, unknown>> | undefined;
    readonly tokenizerFrom?: string | undefined;
  },
  options: { write?: WriteFile } = {},
): Promise<void> {
  const { write = writeDirectly } = options;
  await writeSafetensors(join(dir, 'model.safetensors'), files.sources, { write });
  if (files.tokenizerFrom !== undefined) await copyTokenizer(files.tokenizerFrom, dir, write);
  if (files.generationConfig !== undefined) {
    await write(join(dir, 'generation_config.json'), jsonChunks(files.generationConfig));
  }
  await write(join(dir, 'config.json'), jsonChunks(files.json));
}

/** Copies the tokenizer files that a folder has. */
export async function copyTokenizer(from: string, to: string, write: WriteFile = writeDirectly): Promise<void> {
  let files: string[];
  try {
    files = await readdir(from);
  } catch (error) {
    throw explainFileError(error, from, 'read');
  }
  for (const file of files.filter((name) => TOKENIZER_FILES.has(name)).sort()) {
    await copyThrough(join(from, file), join(to, file), write);
  }
}
