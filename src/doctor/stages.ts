import { join } from 'node:path';
import { readJsonObject } from '../checkpoints/files.js';
import type { DoctorConfig } from '../config/stages.js';
import { UserError } from '../errors.js';
import { writingForm } from '../generation/policy.js';
import { modelHere } from '../hub/local-model.js';
import { judgeParts, writingParts } from '../memory/parts.js';
import { overLayers, planOf, type MemoryPlan } from '../memory/plan.js';
import type { Way } from '../memory/ways.js';
import { writes, type CausalConfig } from '../models/config/causal.js';
import { parseModelConfig, type ModelConfig } from '../models/config/model-config.js';
import { grpoMemory, grpoWays } from '../stages/grpo/memory.js';
import { rmMemory, rmWays } from '../stages/rm/memory.js';
import { sftMemory, sftWays } from '../stages/sft/memory.js';
import { classifierConfig } from '../training/classifier-start.js';

/** A stage of the pipeline: the memory that it takes and settings that take less, or why that is not known. */
export type StagePlan = { readonly stage: string } & (
  { readonly plan: MemoryPlan; readonly ways: readonly Way[] } | { readonly unknown: string }
);

/** What `config.json` says of a model, or why it cannot be read. */
type Shape<Config> = { readonly config: Config } | { readonly unknown: string };

/** The memory of each stage of a recipe, from the shapes of its models; nothing is fetched. */
export async function planStages(config: DoctorConfig): Promise<StagePlan[]> {
  const policy = await policyShape(config.models.policy);
  const judge = await judgeShape(config.models.reward, config.rm.dropout);
  const stage = <Parts extends readonly unknown[]>(
    name: string,
    shapes: { readonly [At in keyof Parts]: Shape<Parts[At]> },
    plan: (...configs: Parts) => MemoryPlan,
    ways: (...configs: Parts) => readonly Way[],
  ): StagePlan => {
    const unknown = shapes.flatMap((shape) => ('unknown' in shape ? [shape.unknown] : []));
    if (unknown.length > 0) return { stage: name, unknown: [...new Set(unknown)].join(' ') };
    const configs = shapes.map((shape) => (shape as { config: unknown }).config) as unknown as Parts;
    return { stage: name, plan: plan(...configs), ways: ways(...configs) };
  };
  return [
    stage<[CausalConfig]>(
      'sft',
      [policy],
      (model) => sftMemory(model, config),
      (model) => sftWays(model, config),
    ),
    stage<[ModelConfig]>(
      'rm',
      [judge],
      (model) => rmMemory(model, config),
      (model) => rmWays(model, config),
    ),
    stage<[CausalConfig, ModelConfig]>(
      'grpo',
      [policy, judge],
      (model, reward) => grpoMemory(model, config, reward),
      (model, reward) => grpoWays(model, config, reward),
    ),
    stage<[CausalConfig, ModelConfig]>(
      'evaluation',
      [policy, judge],
      (model, reward) => evaluationMemory(model, reward, config),
      () => [],
    ),
  ];
}

/** What writing to the held-out prompts takes. */
function evaluationMemory(
  config: CausalConfig,
  judge: ModelConfig,
  { quantization, lora, generate, grpo, rm }: DoctorConfig,
): MemoryPlan {
  const rows = generate.batchSize;
  const writing = { rows, prompts: rows, promptLength: grpo.maxPromptLength, newTokens: generate.maxNewTokens };
  return planOf([
    ...overLayers(config, (model) =>
      writingParts({ config: model, lora, quantization: writingForm(quantization, 'cpu') }, writing),
    ),
    ...overLayers(judge, (model) => judgeParts(model, rows, rm.maxLength)),
  ]);
}

async function policyShape(model: string): Promise<Shape<CausalConfig>> {
  const shape = await shapeOf(model);
  if ('unknown' in shape) return shape;
  const { config, dir } = shape;
  if (config.kind === 'causal' && writes(config)) return { config };
  return { unknown: `${dir} holds a ${config.architecture}, which cannot write texts.` };
}

async function judgeShape(model: string, dropout: number | undefined): Promise<Shape<ModelConfig>> {
  const shape = await shapeOf(model);
  return 'unknown' in shape ? shape : { config: classifierConfig(shape, dropout) };
}

async function shapeOf(model: string): Promise<{ config: ModelConfig; dir: string } | { unknown: string }> {
  const dir = await modelHere(model);
  if (dir === undefined)
    return { unknown: `${model} is neither a folder nor in the cache: \`duanzi run\` fetches it.` };
  const file = join(dir, 'config.json');
  try {
    return { config: parseModelConfig(await readJsonObject(file), file), dir };
  } catch (error) {
    if (error instanceof UserError) return { unknown: `${error.message} (${error.where ?? file})` };
    throw error;
  }
}
