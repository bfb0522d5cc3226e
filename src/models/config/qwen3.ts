import { causalToHuggingFace, fullAttentionToHuggingFace, type CausalConfig, type CausalTraits } from './causal.js';

/** Qwen3 (https://arxiv.org/abs/2505.09388): queries and keys are normalised; `attention_bias` is for all four. */
export const qwen3Traits: CausalTraits = {
  modelType: 'qwen3',
  defaults: {
    vocab_size: 151936,
    intermediate_size: 22016,
    num_key_value_heads: 32,
    head_dim: 128,
    max_position_embeddings: 32768,
  },
  switches: ({ attention_bias: bias }) => ({ qkNorm: true, qkvBias: bias, outputBias: bias, mlpBias: false }),
};

export const qwen3ToHuggingFace = (config: CausalConfig): Record<string, unknown> => ({
  ...causalToHuggingFace(config),
  ...fullAttentionToHuggingFace(config),
  attention_bias: config.qkvBias,
});
