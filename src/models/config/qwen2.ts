import { causalToHuggingFace, fullAttentionToHuggingFace, type CausalConfig, type CausalTraits } from './causal.js';

/** Qwen2 and Qwen2.5 (https://arxiv.org/abs/2407.10671): q, k and v always have a bias, o never. */
export const qwen2Traits: CausalTraits = {
  modelType: 'qwen2',
  defaults: {
    vocab_size: 151936,
    intermediate_size: 22016,
    num_key_value_heads: 32,
    head_dim: null,
    max_position_embeddings: 32768,
  },
  switches: () => ({ qkNorm: false, qkvBias: true, outputBias: false, mlpBias: false }),
};

export const qwen2ToHuggingFace = (config: CausalConfig): Record<string, unknown> => ({
  ...causalToHuggingFace(config),
  ...fullAttentionToHuggingFace(config),
});
