import type { PretrainConfig } from '../../config/stages.js';
import { learnerParts } from '../../memory/parts.js';
import { overLayers, planOf, type MemoryPlan } from '../../memory/plan.js';
import { inferenceSession, trainingSession } from '../../memory/session.js';
import { waysOf, type Way } from '../../memory/ways.js';
import type { ModelConfig } from '../../models/config/model-config.js';
import { packedSizes } from '../../models/packed-tokens.js';
import { dropsOut } from '../../training/dropout.js';
import { causalGraph, maskedGraph, type LanguageGraph } from '../../training/language.js';

/** What of a configuration the memory of pretraining depends on. */
export type PretrainMemory = Pick<PretrainConfig, 'pretrain'>;

/** The memory that pretraining takes where every text is as long as it may be. */
export function pretrainMemory(config: ModelConfig, { pretrain }: PretrainMemory): MemoryPlan {
  const { batchSize, maxLength, maskProbability, recompute } = pretrain;
  const learned = config.kind === 'causal' ? 1 : maskProbability;
  const sizes = { ...packedSizes(batchSize, maxLength), N: Math.ceil(learned * batchSize * maxLength) };
  const graphOf = (model: ModelConfig, training: boolean): LanguageGraph => {
    const options = {
      training: training && dropsOut(model),
      recompute: training && recompute,
      statistics: !training,
    };
    return model.kind === 'causal' ? causalGraph(model, options) : maskedGraph(model, options);
  };
  const parts = overLayers(config, (model) => {
    const training = graphOf(model, true);
    const trainable = training.context.weights;
    const validation = inferenceSession(graphOf(model, false).graph, [sizes], { fed: trainable.keys() });
    return [
      { name: 'activations of training', bytes: trainingSession({ ...training, trainable }, sizes).activations },
      { name: 'activations of validation', bytes: validation.activations },
      ...learnerParts(trainable),
    ];
  });
  return planOf(parts);
}

/** Settings that need less memory; all but the first change what is learned. */
export function pretrainWays(config: ModelConfig, { pretrain }: PretrainMemory): Way[] {
  const [batchSize, maxLength] = [Math.ceil(pretrain.batchSize / 2), Math.ceil(pretrain.maxLength / 2)];
  return waysOf<PretrainMemory>({ pretrain }, (asked) => pretrainMemory(config, asked), [
    { settings: ['pretrain.recompute=true'], config: { pretrain: { ...pretrain, recompute: true } } },
    { settings: [`pretrain.batchSize=${batchSize}`], config: { pretrain: { ...pretrain, batchSize } } },
    { settings: [`pretrain.maxLength=${maxLength}`], config: { pretrain: { ...pretrain, maxLength } } },
  ]);
}
