import type { PretrainConfig } from '../../config/stages.js';
import type { CausalConfig } from '../../models/config/causal.js';
import type { DebertaV2Config } from '../../models/config/deberta-v2.js';
import type { ModelConfig } from '../../models/config/model-config.js';

/** What a model takes of its tokenizer. */
export interface Vocabulary {
  readonly vocabSize: number;
  readonly padTokenId: number;
  /** The id that ends a text; a causal model alone needs it. */
  readonly eosTokenId: number;
}

/** The shape of a model from scratch. */
export function freshConfig(
  section: PretrainConfig['pretrain'],
  { vocabSize, padTokenId, eosTokenId }: Vocabulary,
): ModelConfig {
  const common = {
    vocabSize,
    hiddenSize: section.hiddenSize,
    intermediateSize: section.intermediateSize,
    numHiddenLayers: section.layers,
    numAttentionHeads: section.heads,
    initializerRange: 0.02,
    padTokenId,
    dtype: 'float32' as const,
  };
  if (section.objective === 'causal') {
    return {
      ...common,
      kind: 'causal',
      modelType: 'qwen3',
      architecture: 'Qwen3ForCausalLM',
      numKeyValueHeads: section.kvHeads,
      headDim: section.headDim,
      hiddenAct: 'silu',
      maxPositionEmbeddings: 2048,
      rmsNormEps: 1e-6,
      rope: { type: 'default', theta: 10000 },
      tieWordEmbeddings: true,
      qkNorm: true,
      qkvBias: false,
      outputBias: false,
      mlpBias: false,
      labels: [],
      attentionDropout: 0,
      bosTokenId: null,
      eosTokenIds: [eosTokenId],
    } satisfies CausalConfig;
  }
  return {
    ...common,
    kind: 'encoder',
    modelType: 'deberta-v2',
    architecture: 'DebertaV2ForMaskedLM',
    hiddenAct: 'gelu',
    hiddenDropoutProb: section.dropout,
    attentionProbsDropoutProb: section.dropout,
    layerNormEps: 1e-7,
    maxPositionEmbeddings: 512,
    typeVocabSize: 0,
    positionBiasedInput: false,
    relativeAttention: true,
    maxRelativePositions: 512,
    positionBuckets: section.buckets,
    normRelEbd: 'layer_norm',
    shareAttKey: true,
    posAttType: ['p2c', 'c2p'],
    convKernelSize: 0,
    convGroups: 1,
    convAct: 'tanh',
    poolerDropout: 0,
    poolerHiddenAct: 'gelu',
    classifierDropout: section.dropout,
    labels: ['LABEL_0', 'LABEL_1'],
    legacy: true,
    tieWordEmbeddings: true,
  } satisfies DebertaV2Config;
}
