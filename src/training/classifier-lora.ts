import { initialAdapter, savedName } from '../checkpoints/adapter.js';
import type { AdapterConfig } from '../checkpoints/adapter-config.js';
import type { ModelFolder } from '../checkpoints/model-folder.js';
import type { TensorInfo } from '../checkpoints/safetensors.js';
import { TARGET_MODULES } from '../config/lora.js';
import type { RmSection } from '../config/sections.js';
import type { Value } from '../graph/graph.js';
import type { Tensor } from '../graph/tensor.js';
import type { ModelConfig } from '../models/config/model-config.js';
import { isPartOf, type LoraSettings, type ModelContext } from '../nn/context.js';
import type { InitialValue } from '../optim/optimizer.js';
import { stream } from '../random.js';
import { startingWeights } from './classifier-start.js';

/** The linear layers of a classifier's blocks and the modules of its head, by the last parts of their names. */
interface Modules {
  readonly blocks: readonly string[];
  readonly head: readonly string[];
}

const causal: Modules = { blocks: TARGET_MODULES, head: ['score'] };
const bertBlocks = ['query', 'key', 'value', 'dense'];
const modulesOf: Readonly<Record<ModelConfig['modelType'], Modules>> = {
  qwen3: causal,
  qwen2: causal,
  llama: causal,
  'deberta-v2': { blocks: ['query_proj', 'key_proj', 'value_proj', 'dense'], head: ['pooler', 'classifier'] },
  bert: { blocks: bertBlocks, head: ['pooler', 'classifier'] },
  roberta: { blocks: bertBlocks, head: ['classifier'] },
};

/** The adapter that a classifier is to learn, beside which its head learns whole; undefined where all weights learn. */
export function classifierLora(
  { modelType }: ModelConfig,
  { r, alpha = 2 * r, dropout = 0.05, targetModules }: RmSection['lora'],
): LoraSettings | undefined {
  if (r === 0) return undefined;
  const { blocks, head } = modulesOf[modelType];
  return { r, alpha, dropout, targetModules: targetModules ?? blocks, modulesToSave: head };
}

/** The parameters of a classifier's graph that learn: the adapter's and the head's, or without an adapter all. */
export function learningParameters({ lora, weights, loraWeights }: ModelContext): ReadonlyMap<string, Value> {
  if (lora === undefined) return weights;
  return new Map([...loraWeights, ...[...weights].filter(([name]) => isOfHead(lora, name))]);
}

/** What of a classifier learns, from where, and what stays as its files have it. */
export interface ClassifierStart {
  readonly trainable: ReadonlyMap<string, Value>;
  readonly initial: ReadonlyMap<string, InitialValue>;
  readonly frozen: ReadonlyMap<string, TensorInfo>;
  /** Names of the weights that no file has: the head of a model that came without one. */
  readonly fresh: readonly string[];
}

/**
 * How the classifier of a training graph begins to learn: whole, or with a new adapter on its body.
 *
 * @throws UserError when the folder lacks a weight of the body, or a target module of the adapter
 */
export function classifierStart(folder: ModelFolder, context: ModelContext, seed: number): ClassifierStart {
  const { lora } = context;
  const { initial, stored, fresh } = startingWeights(folder, context.weights, seed);
  const trainable = learningParameters(context);
  if (lora === undefined) return { trainable, initial, frozen: new Map(), fresh };
  const random = stream(seed, 'adapter');
  const factors = initialAdapter(stored, adapterConfigOf(lora, null), () => random.uniform());
  const head = [...initial].filter(([name]) => trainable.has(name));
  const frozen = new Map([...stored].filter(([name]) => !trainable.has(name)));
  return { trainable, initial: new Map<string, InitialValue>([...factors, ...head]), frozen, fresh };
}

/** What PEFT is told of an adapter of a classifier. */
export const adapterConfigOf = (lora: LoraSettings, baseModelNameOrPath: string | null): AdapterConfig => ({
  r: lora.r,
  loraAlpha: lora.alpha,
  loraDropout: lora.dropout,
  targetModules: lora.targetModules,
  useRslora: lora.rankStabilized ?? false,
  modulesToSave: lora.modulesToSave ?? [],
  taskType: 'SEQ_CLS',
  baseModelNameOrPath,
});

/** Learned weights by the names that PEFT gives them. */
export const peftTensors = (
  lora: LoraSettings,
  learned: ReadonlyMap<string, Tensor<'float32'>>,
): Map<string, Tensor<'float32'>> =>
  new Map(Array.from(learned, ([name, tensor]) => [isOfHead(lora, name) ? savedName(name) : name, tensor]));

const isOfHead = ({ modulesToSave = [] }: LoraSettings, weight: string): boolean =>
  isPartOf(modulesToSave, weight.slice(0, weight.lastIndexOf('.')));
