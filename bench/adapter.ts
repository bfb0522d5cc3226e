import { initialAdapter } from '../src/checkpoints/adapter.js';
import { loraSection } from '../src/config/lora.js';
import type { Policy } from '../src/generation/policy.js';
import type { Tensor } from '../src/graph/tensor.js';
import type { LoraSettings } from '../src/nn/context.js';
import { stream } from '../src/random.js';

/** A new adapter with the default settings, as SFT and GRPO start one. */
export function freshAdapter({ folder }: Policy): { lora: LoraSettings; tensors: Map<string, Tensor<'float32'>> } {
  const lora = loraSection.parse({});
  const config = {
    r: lora.r,
    loraAlpha: lora.alpha,
    loraDropout: lora.dropout,
    targetModules: lora.targetModules,
    useRslora: false,
    taskType: 'CAUSAL_LM' as const,
    baseModelNameOrPath: null,
  };
  const random = stream(0, 'adapter');
  return { lora, tensors: initialAdapter(folder.weights, config, () => random.uniform()) };
}
