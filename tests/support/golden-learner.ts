import { loraOf } from '../../src/checkpoints/adapter-config.js';
import { openAdapter } from '../../src/checkpoints/adapter.js';
import { loadTensors } from '../../src/checkpoints/model-folder.js';
import type { SftLossType } from '../../src/config/sft.js';
import { openPolicy } from '../../src/generation/policy.js';
import type { AdamWSettings } from '../../src/optim/adamw.js';
import type { Runtime } from '../../src/runtime/runtime.js';
import { causalGraph } from '../../src/training/language.js';
import { Learner } from '../../src/training/learner.js';
import { golden } from './golden.js';

/** What learns a recorded adapter on the recorded Qwen3, as the SFT stage sets it up. */
export async function goldenLearner(
  runtime: Runtime,
  adapter: string,
  adamw: AdamWSettings,
  lossType: SftLossType = 'nll',
): Promise<Learner> {
  const policy = await openPolicy(golden('qwen3/model'));
  const start = await openAdapter(golden(adapter));
  const { graph, loss, context } = causalGraph(policy.config, { lora: loraOf(start), statistics: true, lossType });
  return Learner.create(runtime, {
    graph,
    loss,
    trainable: context.loraWeights,
    initial: await loadTensors(start.weights, start.weights.keys()),
    frozen: policy.folder.weights,
    adamw,
  });
}
