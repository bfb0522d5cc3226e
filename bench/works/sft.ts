import { sftSection } from '../../src/config/sft.js';
import { openPolicy } from '../../src/generation/policy.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { sftStep } from '../../src/stages/sft.js';
import { packedDropoutFeeds } from '../../src/training/dropout.js';
import { causalGraph, countTokens } from '../../src/training/language.js';
import { Learner } from '../../src/training/learner.js';
import { freshAdapter } from '../adapter.js';
import { sftBatches } from '../batches.js';
import { costOf } from '../cost.js';
import { timed, type Setup, type Work } from '../work.js';

/** An optimizer step of supervised fine-tuning as the stage takes it by default: LoRA on seven projections, dropout. */
export async function sft(setup: Setup): Promise<Work> {
  const section = sftSection.parse({});
  const { quantization, recompute } = setup;
  const policy = await openPolicy(setup.model, undefined, { quantization });
  const runtime = new Runtime({ threads: setup.threads });
  const { lora, tensors } = freshAdapter(policy);
  const training = causalGraph(policy.config, { lora, quantization, recompute, training: true, statistics: true });
  const learner = await Learner.create(runtime, {
    graph: training.graph,
    loss: training.loss,
    trainable: training.context.loraWeights,
    initial: tensors,
    frozen: policy.model.weights,
    adamw: section,
  });
  const batches = await sftBatches(setup, policy, section);
  const cost = costOf(policy.folder);
  let step = 0;
  return {
    description: `LoRA r${lora.r} on ${lora.targetModules.length} projections of ${cost.description}, ${batches.description}`,
    once: async () => {
      const samples = batches.batch(step);
      const items = samples.map((sample, row) => ({ row, sequences: [sample] }));
      const masks = packedDropoutFeeds(0, step++, items);
      const seconds = await timed(() => sftStep(learner, [samples], section.learningRate, [masks]));
      const { tokens, supervised } = countTokens(samples);
      return {
        seconds,
        // Forward, and backward to the activations alone: the base is frozen. The head is needed for tokens that predict a
        // supervised one, and so is what comes after the last attention.
        flops:
          4 * (cost.layerWeights - cost.afterAttention) * tokens +
          4 * (cost.headWeights + cost.afterAttention) * supervised,
        amounts: { 'supervised tokens': supervised, 'real tokens': tokens },
      };
    },
  };
}
