import type { DpoConfig } from '../../config/stages.js';
import { scorerGraph } from '../../generation/scorer.js';
import { learnerParts, mappedPart, sessionParts, sharedPart } from '../../memory/parts.js';
import { overLayers, planOf, type MemoryPlan } from '../../memory/plan.js';
import { inferenceSession, trainingSession } from '../../memory/session.js';
import { divisions, roundedForms, waysOf, type Way } from '../../memory/ways.js';
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

/** Settings that need less memory: the same steps with blocks computed again, or of smaller batches, a rounded base, shorter texts. */
export function dpoWays(config: CausalConfig, given: DpoMemory): Way[] {
  const { dpo } = given;
  const smaller = divisions(dpo.batchSize).map(({ batch, accumulated }) => {
    const gradientAccumulationSteps = dpo.gradientAccumulationSteps * accumulated;
    return {
      settings: [`dpo.batchSize=${batch}`, `dpo.gradientAccumulationSteps=${gradientAccumulationSteps}`],
      config: { ...given, dpo: { ...dpo, batchSize: batch, gradientAccumulationSteps } },
    };
  });
  const maxLength = Math.ceil(dpo.maxLength / 2);
  return waysOf<DpoMemory>(given, (asked) => dpoMemory(config, asked), [
    { settings: ['dpo.recompute=true'], config: { ...given, dpo: { ...dpo, recompute: true } } },
    ...smaller,
    ...roundedForms(given),
    { settings: [`dpo.maxLength=${maxLength}`], config: { ...given, dpo: { ...dpo, maxLength } } },
  ]);
}
