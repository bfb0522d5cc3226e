import type { SftConfig } from '../../config/stages.js';
import { writingForm } from '../../generation/policy.js';
import { learnerParts, mappedPart, sessionParts, sharedPart, writingParts } from '../../memory/parts.js';
import { overLayers, planOf, type MemoryPlan } from '../../memory/plan.js';
import { inferenceSession, trainingSession } from '../../memory/session.js';
import { adapterChanges, waysOf, type Way } from '../../memory/ways.js';
import type { CausalConfig } from '../../models/config/causal.js';
import { packedSizes } from '../../models/packed-tokens.js';
import { causalGraph } from '../../training/language.js';

/** What of a configuration the memory of SFT depends on. */
export type SftMemory = Pick<SftConfig, 'quantization' | 'lora' | 'sft'>;

/** The memory that SFT takes where every sample is as long as it may be, and all of it is learned. */
export function sftMemory(config: CausalConfig, given: SftMemory): MemoryPlan {
  const { quantization, lora, sft } = given;
  const { batchSize, maxLength, sampling } = sft;
  const sizes = { ...packedSizes(batchSize, maxLength), N: batchSize * maxLength };
  const parts = overLayers(config, (model) => {
    const training = causalGraph(model, {
      lora,
      quantization,
      recompute: sft.recompute,
      training: lora.dropout > 0,
      statistics: true,
      lossType: sft.lossType,
    });
    const trainable = training.context.loraWeights;
    const evaluation = causalGraph(model, { lora, quantization, statistics: true });
    const rows = Math.max(1, sft.samples);
    const written = { rows, prompts: rows, promptLength: maxLength, newTokens: sampling.maxNewTokens };
    const validation = inferenceSession(evaluation.graph, [sizes], { fed: trainable.keys(), stored: model.dtype });
    return [
      sharedPart(evaluation.graph),
      ...sessionParts('training', trainingSession({ ...training, trainable }, sizes, model.dtype)),
      mappedPart({ quantization }, validation),
      ...sessionParts('validation', validation),
      ...learnerParts(trainable),
      ...writingParts({ config: model, lora, quantization: writingForm(quantization, 'cpu') }, written),
    ];
  });
  return planOf(parts);
}

/** Settings that need less memory. */
export const sftWays = (config: CausalConfig, given: SftMemory): Way[] =>
  waysOf(given, (asked) => sftMemory(config, asked), adapterChanges('sft', given));
