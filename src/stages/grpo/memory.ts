import type { GrpoConfig } from '../../config/stages.js';
import { writingForm } from '../../generation/policy.js';
import { scorerGraph } from '../../generation/scorer.js';
import {
  adapterNames,
  judgeParts,
  learnerParts,
  mappedPart,
  sessionParts,
  sharedPart,
  writingParts,
} from '../../memory/parts.js';
import { overLayers, planOf, type MemoryPlan } from '../../memory/plan.js';
import { inferenceSession, trainingSession } from '../../memory/session.js';
import { divisions, roundedForms, waysOf, type Way } from '../../memory/ways.js';
import type { CausalConfig } from '../../models/config/causal.js';
import type { ModelConfig } from '../../models/config/model-config.js';
import { packedSizes } from '../../models/packed-tokens.js';
import { grpoGraph } from './graph.js';
import { lossSettings } from './loss-settings.js';

/** What of a configuration the memory of GRPO depends on. */
export type GrpoMemory = Pick<GrpoConfig, 'quantization' | 'lora' | 'grpo'>;

/** Tokens of a text that the reward model reads. */
const JUDGED = 256;

/**
 * The memory that GRPO takes where prompts and completions are as long as they may be.
 *
 * @param judge the reward model's shape, where there is one
 */
export function grpoMemory(
  config: CausalConfig,
  { quantization, lora: adapter, grpo }: GrpoMemory,
  judge: ModelConfig | undefined,
): MemoryPlan {
  const { maxPromptLength, maxCompletionLength, completionsPerRollout, numGenerations } = grpo;
  const { completionsAtOnce = completionsPerRollout } = grpo;
  const lora = { ...adapter, dropout: 0 };
  const batch = grpo.microBatchSize ?? grpo.batchSize;
  const sizes = { ...packedSizes(batch, maxPromptLength + maxCompletionLength), N: batch * maxCompletionLength };
  const parts = overLayers(config, (model) => {
    const { context, loss } = grpoGraph(model, lora, {
      ...lossSettings(grpo),
      temperature: grpo.temperature,
      quantization,
      recompute: grpo.recompute,
    });
    const trainable = context.loraWeights;
    const training = trainingSession({ graph: context.graph, loss, trainable }, sizes, model.dtype);
    const scorer = scorerGraph({ config: model, lora, quantization });
    const scoring = inferenceSession(scorer, [sizes], { fed: adapterNames(scorer), stored: model.dtype });
    return [
      sharedPart(scorer),
      ...sessionParts('training', training),
      mappedPart({ quantization }, scoring),
      ...sessionParts('scoring', scoring),
      ...learnerParts(trainable),
      ...writingParts(
        { config: model, lora, quantization: grpo.samplerQuantization ?? writingForm(quantization, 'cpu') },
        {
          rows: completionsAtOnce,
          prompts: Math.ceil(completionsAtOnce / numGenerations),
          promptLength: maxPromptLength,
          newTokens: maxCompletionLength,
        },
      ),
    ];
  });
  const judging = judge === undefined ? [] : overLayers(judge, (model) => judgeParts(model, grpo.batchSize, JUDGED));
  return planOf([...parts, ...judging]);
}

/**
 * Settings that need less memory: blocks computed again, smaller passes of the same steps, fewer texts written at once, a
 * rounded base, shorter texts.
 */
export function grpoWays(config: CausalConfig, given: GrpoMemory, judge: ModelConfig | undefined): Way[] {
  const { grpo } = given;
  const smaller = divisions(grpo.batchSize).map(({ batch }) => ({
    settings: [`grpo.microBatchSize=${batch}`],
    config: { ...given, grpo: { ...grpo, microBatchSize: batch } },
  }));
  const maxCompletionLength = Math.ceil(grpo.maxCompletionLength / 2);
  const fewer = [2, 4, 8].map((parts) => {
    const completionsAtOnce = Math.ceil((grpo.completionsAtOnce ?? grpo.completionsPerRollout) / parts);
    return {
      settings: [`grpo.completionsAtOnce=${completionsAtOnce}`],
      config: { ...given, grpo: { ...grpo, completionsAtOnce } },
    };
  });
  const shorter = {
    settings: [`grpo.maxCompletionLength=${maxCompletionLength}`],
    config: { ...given, grpo: { ...grpo, maxCompletionLength } },
  };
  return waysOf<GrpoMemory>(given, (asked) => grpoMemory(config, asked, judge), [
    { settings: ['grpo.recompute=true'], config: { ...given, grpo: { ...grpo, recompute: true } } },
    ...(grpo.topEntropyQuantile < 1 ? [] : smaller),
    ...fewer,
    ...roundedForms(given),
    shorter,
  ]);
}
