import { join } from 'node:path';
import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import { isPartOf, isTarget, loraName, type LoraSettings } from '../nn/context.js';
import { adapterConfigToPeft, parseAdapterConfig, type AdapterConfig } from './adapter-config.js';
import { jsonChunks, readJsonObject, writeDirectly, type WriteFile } from './files.js';
import { listed } from './listed.js';
import { readHeader, type TensorInfo } from './safetensors.js';
import { sourceOfFloats, writeSafetensors } from './safetensors-writer.js';

export const adapterConfigFile = 'adapter_config.json';
export const adapterWeightsFile = 'adapter_model.safetensors';

/** An adapter folder, opened: its config is read, of its weights only where they lie. */
export interface AdapterFolder {
  readonly dir: string;
  readonly config: AdapterConfig;
  /** By their PEFT names. */
  readonly weights: ReadonlyMap<string, TensorInfo>;
}

/** Anything with shapes by name: a checkpoint's tensors or those in memory. */
export type Shapes = ReadonlyMap<string, { readonly shape: readonly number[] }>;

/** PEFT's names of the two factors of a module: A (r, in) and B (out, r). */
export const loraTensorNames = (module: string): { readonly a: string; readonly b: string } => ({
  a: loraName(module, 'A'),
  b: loraName(module, 'B'),
});

/**
 * Opens an adapter folder in PEFT's layout.
 *
 * @throws UserError when a file is missing or wrong, or the adapter is of a kind that is not supported
 */
export async function openAdapter(dir: string): Promise<AdapterFolder> {
  const file = join(dir, adapterConfigFile);
  const config = parseAdapterConfig(await readJsonObject(file), file);
  const { tensors } = await readHeader(join(dir, adapterWeightsFile));
  return { dir, config, weights: tensors };
}

/**
 * Names of a model's linear modules that are adapted, sorted: their last part (or parts) is one of `targetModules`, and
 * they lie in none of `modulesToSave`, as PEFT has it.
 *
 * @throws UserError listing the targets that no module of the model answers to
 */
export function adaptedModules(
  weights: Shapes,
  settings: Pick<LoraSettings, 'targetModules' | 'modulesToSave'>,
): string[] {
  const { modulesToSave = [] } = settings;
  const linear = Array.from(weights, ([name, { shape }]) => (shape.length === 2 ? moduleOf(name) : undefined));
  const modules = linear.filter((module) => module !== undefined).filter((module) => !isPartOf(modulesToSave, module));
  const unmatched = settings.targetModules.filter(
    (target) => !modules.some((module) => isTarget({ ...settings, targetModules: [target] }, module)),
  );
  if (unmatched.length > 0) {
    const known = new Set(modules.map((module) => module.slice(module.lastIndexOf('.') + 1)));
    throw new UserError({
      code: 'adapter.unknown-module',
      message: `The model has no linear module named ${listed(unmatched)}.`,
      fix: `Choose target modules among ${[...known].sort().join(', ')}.`,
    });
  }
  return modules.filter((module) => isTarget(settings, module)).sort();
}

/** The module of a matrix that is no embedding table. */
const moduleOf = (weight: string): string | undefined => /^(.+(?<!embed_tokens|embeddings))\.weight$/.exec(weight)?.[1];

const savedPrefix = 'base_model.model.';

/**
 * The tensors that an adapter holds whole (PEFT's `modules_to_save`), such as a classifier's head, by the names of those
 * of the model that they stand in for.
 */
export function savedTensors({ config, weights }: Pick<AdapterFolder, 'config' | 'weights'>): Map<string, TensorInfo> {
  const saved = new Map<string, TensorInfo>();
  for (const [full, info] of weights) {
    const name = full.slice(savedPrefix.length);
    if (full.startsWith(savedPrefix) && isSaved(name, config)) saved.set(name, { ...info, name });
  }
  return saved;
}

/** PEFT's name of a tensor that an adapter holds whole, by that of the model's tensor. */
export const savedName = (name: string): string => `${savedPrefix}${name}`;

/** PEFT names of an adapter's factors A and B. */
export const loraNamesOf = ({ weights }: Pick<AdapterFolder, 'weights'>): string[] =>
  [...weights.keys()].filter((name) => /\.lora_[AB]\.weight$/.test(name));

const isSaved = (name: string, { modulesToSave = [] }: AdapterConfig): boolean =>
  !/\.lora_[AB]\.weight$/.test(name) && isPartOf(modulesToSave, name.slice(0, name.lastIndexOf('.')));

/** The shapes that an adapter's tensors must have to fit a model, by PEFT name, sorted by module. */
export function adapterShapes(
  weights: Shapes,
  config: AdapterConfig,
): Map<string, { readonly shape: readonly number[] }> {
  const shapes = new Map<string, { shape: readonly number[] }>();
  for (const module of adaptedModules(weights, config)) {
    const [out, input] = weights.get(`${module}.weight`)!.shape as [number, number];
    const { a, b } = loraTensorNames(module);
    shapes.set(a, { shape: [config.r, input] });
    shapes.set(b, { shape: [out, config.r] });
  }
  return shapes;
}

/**
 * Checks that an adapter belongs to a model: the same modules, with fitting shapes.
 *
 * @param weights the model's tensors
 * @throws UserError listing what differs
 */
export function checkAdapter(adapter: AdapterFolder, weights: Shapes): void {
  const differences = differencesOf(adapter, weights);
  if (differences.length === 0) return;
  const more = differences.length > 8 ? ` … and ${differences.length - 8} more` : '';
  throw new UserError({
    code: 'adapter.other-model',
    message: `The adapter does not fit the model: ${differences.slice(0, 8).join('; ')}${more}.`,
    where: adapter.dir,
    fix: `Give the model that the adapter was trained on${
      adapter.config.baseModelNameOrPath === null ? '' : ` (it names ${adapter.config.baseModelNameOrPath})`
    }.`,
  });
}

function differencesOf(adapter: AdapterFolder, weights: Shapes): string[] {
  let expected: Map<string, { readonly shape: readonly number[] }>;
  try {
    expected = adapterShapes(weights, adapter.config);
  } catch (error) {
    if (error instanceof UserError) return [error.message.replace(/\.$/, '')];
    throw error;
  }
  // A head that the model has not, the adapter may bring.
  const saved = savedTensors(adapter);
  for (const [name, { shape }] of weights) {
    if (isSaved(name, adapter.config)) expected.set(savedName(name), { shape });
  }
  const differences: string[] = [];
  for (const [name, { shape }] of expected) {
    const found = adapter.weights.get(name)?.shape;
    if (found === undefined) differences.push(`it lacks \`${name}\``);
    else if (found.join() !== shape.join()) {
      differences.push(`\`${name}\` is (${found.join(', ')}) where the model needs (${shape.join(', ')})`);
    }
  }
  for (const name of adapter.weights.keys()) {
    if (!expected.has(name) && !saved.has(name.slice(savedPrefix.length))) {
      differences.push(`the model has no place for \`${name}\``);
    }
  }
  return differences;
}

/**
 * A new adapter for a model, as PEFT starts one: A uniform in ±1/√in (Kaiming with a = √5), B zero, so that the
 * adapted model computes what the base model does.
 *
 * @param random uniform in [0, 1); drawn from once for each element of A, in the order of the returned map
 */
export function initialAdapter(
  weights: Shapes,
  config: AdapterConfig,
  random: () => number,
): Map<string, Tensor<'float32'>> {
  const tensors = new Map<string, Tensor<'float32'>>();
  for (const [name, { shape }] of adapterShapes(weights, config)) {
    const [rows, columns] = shape as [number, number];
    const data = new Float32Array(rows * columns);
    if (name.endsWith('.lora_A.weight')) {
      const bound = 1 / Math.sqrt(columns);
      for (let i = 0; i < data.length; i++) data[i] = (2 * random() - 1) * bound;
    }
    tensors.set(name, { dtype: 'float32', shape, data });
  }
  return tensors;
}

/** Writes an adapter folder that PEFT and `openAdapter` read; the weights as float32. The config comes last. */
export async function writeAdapter(
  dir: string,
  adapter: { readonly config: AdapterConfig; readonly tensors: ReadonlyMap<string, Tensor<'float32'>> },
  options: { write?: WriteFile } = {},
): Promise<void> {
  const { write = writeDirectly } = options;
  const sources = Array.from(adapter.tensors, ([name, tensor]) => sourceOfFloats(name, tensor));
  await writeSafetensors(join(dir, adapterWeightsFile), sources, { write });
  await write(join(dir, adapterConfigFile), jsonChunks(adapterConfigToPeft(adapter.config)));
}
