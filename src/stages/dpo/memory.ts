import type { DpoConfig } from '../../config/stages.js';
import { scorerGraph } from '../../generation/scorer.js';
import { learnerParts, mappedPart, sessionParts, sharedPart } from '../../memory/parts.js';
import { overLayers, planOf, type MemoryPlan } from '../../memory/plan.js';
import { inferenceSession, trainingSession } from '../../memory/session.js';
import { adapterChanges, waysOf, type Way } from '../../memory/ways.js';
import type { CausalConfig } from '../../models/config/causal.js';
import { packedSizes } from '../../models/packed-tokens.js';
import { dpoGraph } from './graph.js';

/** What of a configuration the memory of DPO depends on. */
export type DpoMemory = Pick<DpoConfig, 'quantization' | 'lora' | 'dpo'>;

/** The memory that DPO takes where both texts of every pair are as long as they may be, and all of them is learned. */
export function dpoMemory(config: CausalConfig, { quantization, lora, dpo }: DpoMemory): MemoryPlan {
  const { batchSize, maxLength } = dpo;
  const texts = 2 * batchSize;
  const sizes = { ...packedSizes(texts, maxLength), N: texts * maxLength, P: batchSize };
  const parts = overLayers(config, (model) => {
    const training = dpoGraph(model, lora, { ...dpo, quantization });
    const trainable = training.context.loraWeights;
    const kept = { fed: trainable.keys(), stored: model.dtype };
    const { graph } = dpoGraph(model, lora, { ...dpo, recompute: false, quantization }).context;
    const validation = inferenceSession(graph, [sizes], kept);
    const scorer = scorerGraph({ config: model, lora, quantization });
    const session = trainingSession(
      { graph: training.context.graph, loss: training.loss, trainable },
      sizes,
      model.dtype,
    );
    return [
      sharedPart(graph),
      ...sessionParts('training', session),
      mappedPart({ quantization }, validation),
      ...sessionParts('validation', validation),
      ...sessionParts('the reference', inferenceSession(scorer, [sizes], kept)),
      ...learnerParts(trainable),
    ];
  });
  return planOf(parts);
}

/** Settings that need less memory. */
export const dpoWays = (config: CausalConfig, given: DpoMemory): Way[] =>
  waysOf(given, (asked) => dpoMemory(config, asked), adapterChanges('dpo', given));
