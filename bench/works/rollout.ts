import { grpoSection } from '../../src/config/grpo.js';
import { Decoder } from '../../src/generation/decoder.js';
import { openPolicy } from '../../src/generation/policy.js';
import { unfiltered } from '../../src/generation/sampling-settings.js';
import { stream } from '../../src/random.js';
import { Runtime, type DeviceTensor } from '../../src/runtime/runtime.js';
import { freshAdapter } from '../adapter.js';
import { prompts } from '../batches.js';
import { costOf } from '../cost.js';
import type { Setup, Work } from '../work.js';

/** Completions of GRPO: the base with an adapter, its sampling, no end of sequence, timed from the first token to the last. */
export async function rollout(setup: Setup, batchSize: number): Promise<Work> {
  const section = grpoSection.parse({});
  const policy = await openPolicy(setup.model, undefined, setup);
  const runtime = new Runtime({ threads: setup.threads });
  const { lora, tensors } = freshAdapter(policy);
  const decoder = await Decoder.create(runtime, { ...policy.model, lora });
  const adapter: Record<string, DeviceTensor> = {};
  for (const [name, tensor] of tensors) adapter[name] = await runtime.upload(tensor);
  const asked = await prompts(setup, policy, batchSize);
  const maxNewTokens = setup.quick ? 4 : Math.max(16, 64 / batchSize);
  const cost = costOf(policy.folder);
  let repetition = 0;
  return {
    description: `${cost.description} with LoRA r${lora.r}, batch ${batchSize}, ${maxNewTokens} new tokens each`,
    once: async () => {
      const moments: number[] = [];
      const number = repetition++;
      await decoder.generate(asked, {
        eosTokenIds: new Set(),
        padTokenId: policy.padTokenId,
        maxNewTokens,
        sampling: { ...unfiltered, temperature: section.temperature, topP: section.topP, topK: section.topK },
        batchSize,
        random: (prompt) => stream(0, 'rollout', number, prompt),
        adapter,
        onProgress: () => moments.push(performance.now()),
      });
      const tokens = batchSize * (moments.length - 1);
      return {
        seconds: (moments.at(-1)! - moments[0]!) / 1000,
        flops: 2 * (cost.layerWeights + cost.headWeights) * tokens,
        amounts: { tokens },
      };
    },
  };
}
