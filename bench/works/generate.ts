import { grpoSection } from '../../src/config/grpo.js';
import { Decoder } from '../../src/generation/decoder.js';
import { openPolicy, writingModel } from '../../src/generation/policy.js';
import { unfiltered } from '../../src/generation/sampling-settings.js';
import { stream } from '../../src/random.js';
import { Runtime, type DeviceTensor } from '../../src/runtime/runtime.js';
import { freshAdapter } from '../adapter.js';
import { prompts } from '../batches.js';
import { costOf } from '../cost.js';
import { timed, type Setup, type Work } from '../work.js';

/** Texts of a base with an adapter, the sampling of GRPO, no end of sequence; the prompt pass is part of the time. */
export async function generate(setup: Setup, batchSize: number): Promise<Work> {
  const section = grpoSection.parse({});
  const policy = await openPolicy(setup.model, undefined, setup);
  const runtime = new Runtime({ threads: setup.threads });
  const { lora, tensors } = freshAdapter(policy);
  const decoder = await Decoder.create(runtime, { ...(await writingModel(policy, runtime.device)), lora });
  const adapter: Record<string, DeviceTensor> = {};
  for (const [name, tensor] of tensors) adapter[name] = await runtime.upload(tensor);
  const asked = await prompts(setup, policy, batchSize);
  const maxNewTokens = setup.quick ? 4 : 64;
  const cost = costOf(policy.folder);
  let repetition = 0;
  return {
    description: `${cost.description} with LoRA r${lora.r}, batch ${batchSize}, ${maxNewTokens} new tokens each`,
    once: async () => {
      const number = repetition++;
      const seconds = await timed(() =>
        decoder.generate(asked, {
          eosTokenIds: new Set(),
          padTokenId: policy.padTokenId,
          maxNewTokens,
          sampling: { ...unfiltered, temperature: section.temperature, topP: section.topP, topK: section.topK },
          batchSize,
          random: (prompt) => stream(0, 'generate', number, prompt),
          adapter,
        }),
      );
      const tokens = batchSize * maxNewTokens;
      return { seconds, flops: 2 * (cost.layerWeights + cost.headWeights) * tokens, amounts: { tokens } };
    },
  };
}
