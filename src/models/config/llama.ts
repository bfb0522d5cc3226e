import { causalToHuggingFace, type CausalConfig, type CausalTraits } from './causal.js';

/** Llama 2 and 3 (https://arxiv.org/abs/2407.21783): `attention_bias` is for q, k, v and o, `mlp_bias` for the rest. */
export const llamaTraits: CausalTraits = {
  modelType: 'llama',
  defaults: {
    vocab_size: 32000,
    intermediate_size: 11008,
    num_key_value_heads: null,
    head_dim: null,
    max_position_embeddings: 2048,
  },
  switches: ({ attention_bias: bias, mlp_bias: mlpBias }) => ({
    qkNorm: false,
    qkvBias: bias,
    outputBias: bias,
    mlpBias,
  }),
};

export const llamaToHuggingFace = (config: CausalConfig): Record<string, unknown> => ({
  ...causalToHuggingFace(config),
  attention_bias: config.qkvBias,
  mlp_bias: config.mlpBias,
});
