import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import { parseJsonFields, tokenIds } from '../models/config/fields.js';
import { parseModelConfig, type ModelConfig } from '../models/config/model-config.js';
import { explainFileError, readJsonObject } from './files.js';
import { listed } from './listed.js';
import { openWeights } from './open-weights.js';
import { parseQuantizationConfig } from './quantized/quantization-config.js';
import type { StoredFourBit } from './quantized/stored-four-bit.js';
import { readFloats, type TensorInfo } from './safetensors.js';
import { withStandardNames } from './standard-names.js';

/** A model in Hugging Face layout, opened: its configs are read, of its weights only where they lie. */
export interface ModelFolder {
  readonly dir: string;
  /** `config.json` as it stands. */
  readonly rawConfig: Readonly<Record<string, unknown>>;
  readonly config: ModelConfig;
  /** `generation_config.json` as it stands, where there is one. */
  readonly generationConfig: Readonly<Record<string, unknown>> | undefined;
  /** Every token id that ends a text, ascending, of both configs; the tokenizer may know another. */
  readonly eosTokenIds: readonly number[];
  /** By their names; those that are stored in 4 bits as float32. */
  readonly weights: ReadonlyMap<string, TensorInfo>;
  /** Those that are stored in 4 bits, as they are stored. */
  readonly quantized: ReadonlyMap<string, StoredFourBit>;
}

/**
 * Opens a model folder: `config.json`, `generation_config.json` if there is one, and the headers of
 * its weights: `model.safetensors`, else `pytorch_model.bin`, or the shards that the index of either names.
 *
 * @throws UserError when the folder, a file or a shard is missing, or does not say what it should
 */
export async function openModelFolder(dir: string): Promise<ModelFolder> {
  const files = await listModelFolder(dir);
  const configFile = join(dir, 'config.json');
  if (!files.has('config.json')) throw noConfig(dir, files);
  const rawConfig = await readJsonObject(configFile);
  const config = parseModelConfig(rawConfig, configFile);
  const generationFile = join(dir, 'generation_config.json');
  const generationConfig = files.has('generation_config.json') ? await readJsonObject(generationFile) : undefined;
  const eosTokenIds = new Set([
    ...eosIdsOf(rawConfig, configFile),
    ...eosIdsOf(generationConfig ?? {}, generationFile),
  ]);
  parseQuantizationConfig(rawConfig, configFile);
  const { weights, quantized } = await openWeights(dir, files);
  return {
    dir,
    rawConfig,
    config,
    generationConfig,
    eosTokenIds: [...eosTokenIds].sort((a, b) => a - b),
    weights: withStandardNames(weights),
    quantized,
  };
}

/** Tensors by name, widened to float32 (F64 is rounded). A missing one is a UserError that names it. */
export async function loadTensors(
  weights: ReadonlyMap<string, TensorInfo>,
  names: Iterable<string>,
): Promise<Map<string, Tensor<'float32'>>> {
  const infos = requireTensors(weights, names);
  const loaded = new Map<string, Tensor<'float32'>>();
  for (const info of infos) loaded.set(info.name, await readFloats(info));
  return loaded;
}

/** The named tensors of a checkpoint, or a UserError that lists those it lacks. */
export function requireTensors(weights: ReadonlyMap<string, TensorInfo>, names: Iterable<string>): TensorInfo[] {
  const wanted = [...names];
  const missing = wanted.filter((name) => !weights.has(name));
  if (missing.length > 0) {
    const first = weights.values().next();
    throw new UserError({
      code: 'checkpoint.missing-tensor',
      message: `The checkpoint lacks ${listed(missing)}.`,
      ...(first.done !== true && { where: first.value.file }),
      fix: 'Give a checkpoint of the architecture that its config.json names.',
    });
  }
  return wanted.map((name) => weights.get(name)!);
}

const eosSchema = z.object({ eos_token_id: tokenIds });
const eosIdsOf = (json: unknown, where: string): readonly number[] =>
  parseJsonFields(eosSchema, json, where).eos_token_id;

async function listModelFolder(dir: string): Promise<ReadonlySet<string>> {
  const stats = await stat(dir).catch(() => undefined);
  if (stats?.isDirectory() !== true) {
    throw new UserError({
      code: 'model.no-folder',
      message: stats === undefined ? 'There is no such model folder.' : 'This is a file, not a model folder.',
      where: dir,
      fix: 'Give the folder that holds config.json and model.safetensors.',
    });
  }
  try {
    return new Set(await readdir(dir));
  } catch (error) {
    throw explainFileError(error, dir, 'read');
  }
}

const noConfig = (dir: string, files: ReadonlySet<string>): UserError =>
  new UserError({
    code: 'model.no-config',
    message: files.has('adapter_config.json')
      ? 'This folder holds an adapter, not a model.'
      : 'The model folder has no config.json.',
    where: dir,
    fix: files.has('adapter_config.json')
      ? 'Give the folder of its base model as the model, and this one as the adapter.'
      : 'Give the folder that holds config.json and model.safetensors.',
  });
