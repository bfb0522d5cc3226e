import type { RmConfig } from '../../config/stages.js';
import { learnerParts, sessionParts } from '../../memory/parts.js';
import { overLayers, planOf, type MemoryPlan } from '../../memory/plan.js';
import { inferenceSession, trainingSession } from '../../memory/session.js';
import { waysOf, type Way } from '../../memory/ways.js';
import type { ModelConfig } from '../../models/config/model-config.js';
import { packedSizes } from '../../models/packed-tokens.js';
import { classifierContext } from '../../rewards/classifier.js';
import { classificationGraph, passesOf, tokensAtOnceOf } from '../../training/classification.js';
import { classifierLora, learningParameters } from '../../training/classifier-lora.js';

/** What allocators hold and do not use, of parts of many lengths in turn: measured, see docs/memory.md. */
const UNUSED = 80 * 2 ** 20;

/**
 * The memory that the reward model's training takes where every text is as long as it may be.
 *
 * @param config the classifier that is trained
 */
export function rmMemory(config: ModelConfig, { rm }: Pick<RmConfig, 'rm'>): MemoryPlan {
  const lora = classifierLora(config, rm.lora);
  const passes = passesOf(config, rm.rdropAlpha, lora);
  const atOnce = Math.max(1, Math.floor(tokensAtOnceOf(rm, passes) / (passes * rm.maxLength)));
  const learned = packedSizes(Math.min(rm.batchSize, atOnce), rm.maxLength);
  const judged = packedSizes(Math.min(rm.batchSize, atOnce * passes), rm.maxLength);
  const parts = overLayers(config, (model) => {
    const training = classificationGraph(model, rm, lora);
    const trainable = learningParameters(training.context);
    const judging = classifierContext(model, lora && { lora }).graph;
    return [
      ...sessionParts('training', trainingSession({ ...training, trainable }, learned)),
      ...sessionParts('validation', inferenceSession(judging, [judged], { fed: trainable.keys() })),
      ...learnerParts(trainable),
    ];
  });
  return planOf([...parts, { name: 'memory held between computations', bytes: UNUSED }]);
}

/** Settings that need less memory; all but the first change what is learned. */
export function rmWays(config: ModelConfig, { rm }: Pick<RmConfig, 'rm'>): Way[] {
  const [batchSize, maxLength] = [Math.ceil(rm.batchSize / 2), Math.ceil(rm.maxLength / 2)];
  const tokensAtOnce = rm.maxLength * passesOf(config, rm.rdropAlpha, classifierLora(config, rm.lora));
  return waysOf({ rm }, (asked) => rmMemory(config, asked), [
    { settings: [`rm.tokensAtOnce=${tokensAtOnce}`], config: { rm: { ...rm, tokensAtOnce } } },
    { settings: [`rm.batchSize=${batchSize}`], config: { rm: { ...rm, batchSize } } },
    { settings: [`rm.maxLength=${maxLength}`], config: { rm: { ...rm, maxLength } } },
    { settings: ['rm.lora.r=16'], config: { rm: { ...rm, lora: { ...rm.lora, r: 16 } } } },
    { settings: ['rm.rdropAlpha=0'], config: { rm: { ...rm, rdropAlpha: 0 } } },
  ]);
}

/** The memory of learning from pairs: both texts of all pairs of a batch go through the model at once, one time. */
export function pairsMemory(config: ModelConfig, { rm }: Pick<RmConfig, 'rm'>): MemoryPlan {
  const batchSize = 2 * rm.batchSize;
  return rmMemory(config, { rm: { ...rm, batchSize, rdropAlpha: 0, tokensAtOnce: batchSize * rm.maxLength } });
}

/** Settings that need less memory; all but the first change what is learned. */
export function pairsWays(config: ModelConfig, { rm }: Pick<RmConfig, 'rm'>): Way[] {
  const [batchSize, maxLength] = [Math.ceil(rm.batchSize / 2), Math.ceil(rm.maxLength / 2)];
  return waysOf({ rm }, (asked) => pairsMemory(config, asked), [
    { settings: ['rm.recompute=true'], config: { rm: { ...rm, recompute: true } } },
    { settings: [`rm.batchSize=${batchSize}`], config: { rm: { ...rm, batchSize } } },
    { settings: [`rm.maxLength=${maxLength}`], config: { rm: { ...rm, maxLength } } },
    { settings: ['rm.lora.r=16'], config: { rm: { ...rm, lora: { ...rm.lora, r: 16 } } } },
  ]);
}
