import type { CausalConfig } from '../../src/models/config/causal.js';
import type { DebertaV2Config } from '../../src/models/config/deberta-v2.js';
import type { ModelConfig } from '../../src/models/config/model-config.js';

/** One run of a stage whose peak memory is measured. */
export interface MemoryCase {
  readonly name: string;
  readonly stage: 'sft' | 'rm' | 'grpo';
  readonly model: ModelConfig;
  /** Settings as `--set` takes them. */
  readonly sets: readonly string[];
}

const QWEN3: CausalConfig = {
  kind: 'causal',
  modelType: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  vocabSize: 6144,
  hiddenSize: 512,
  intermediateSize: 1536,
  numHiddenLayers: 4,
  numAttentionHeads: 8,
  numKeyValueHeads: 4,
  headDim: 64,
  hiddenAct: 'silu',
  maxPositionEmbeddings: 4096,
  initializerRange: 0.02,
  rmsNormEps: 1e-6,
  rope: { type: 'default', theta: 1e6 },
  tieWordEmbeddings: true,
  qkNorm: true,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  labels: [],
  attentionDropout: 0,
  bosTokenId: null,
  eosTokenIds: [6143],
  padTokenId: 6142,
  dtype: 'float32',
};
const WIDE: CausalConfig = {
  ...QWEN3,
  vocabSize: 65536,
  hiddenSize: 1024,
  intermediateSize: 3072,
  numAttentionHeads: 16,
  numKeyValueHeads: 8,
  headDim: 128,
  dtype: 'bfloat16',
};

const DEBERTA: DebertaV2Config = {
  kind: 'encoder',
  modelType: 'deberta-v2',
  architecture: 'DebertaV2ForSequenceClassification',
  vocabSize: 12800,
  hiddenSize: 768,
  intermediateSize: 3072,
  numHiddenLayers: 3,
  numAttentionHeads: 12,
  hiddenAct: 'gelu',
  hiddenDropoutProb: 0.1,
  attentionProbsDropoutProb: 0.1,
  layerNormEps: 1e-7,
  initializerRange: 0.02,
  maxPositionEmbeddings: 512,
  typeVocabSize: 0,
  positionBiasedInput: false,
  relativeAttention: true,
  maxRelativePositions: 512,
  positionBuckets: 256,
  normRelEbd: 'layer_norm',
  shareAttKey: true,
  posAttType: ['p2c', 'c2p'],
  convKernelSize: 0,
  convGroups: 1,
  convAct: 'tanh',
  poolerDropout: 0,
  poolerHiddenAct: 'gelu',
  classifierDropout: 0.1,
  labels: ['not_humorous', 'humorous'],
  legacy: true,
  tieWordEmbeddings: true,
  padTokenId: 0,
  dtype: 'float32',
};

/** What GRPO is rewarded by. */
export const JUDGE: ModelConfig = DEBERTA;

const sft = (batch: number, length: number, ...more: string[]): string[] => [
  `sft.batchSize=${batch}`,
  `sft.maxLength=${length}`,
  ...more,
];
const rm = (batch: number, length: number, ...more: string[]): string[] => [
  `rm.batchSize=${batch}`,
  `rm.maxLength=${length}`,
  ...more,
];
/** Prompts are short, as those of the published data are: no room is counted for longer ones. */
const grpo = (batch: number, completions: number, length: number, ...more: string[]): string[] => [
  `grpo.batchSize=${batch}`,
  `grpo.completionsPerRollout=${completions}`,
  'grpo.maxPromptLength=48',
  `grpo.maxCompletionLength=${length}`,
  ...more,
];

/** Several shapes of each stage: wide and narrow, long and short, each form of the base. */
export const CASES: readonly MemoryCase[] = [
  { name: 'sft narrow, 4 × 64', stage: 'sft', model: QWEN3, sets: sft(4, 64) },
  { name: 'sft narrow, 4 × 256', stage: 'sft', model: QWEN3, sets: sft(4, 256) },
  { name: 'sft narrow, 16 × 256', stage: 'sft', model: QWEN3, sets: sft(16, 256) },
  { name: 'sft narrow, 4 × 256, int8', stage: 'sft', model: QWEN3, sets: sft(4, 256, 'quantization=int8') },
  { name: 'sft wide, 4 × 128', stage: 'sft', model: WIDE, sets: sft(4, 128) },
  { name: 'sft wide, 4 × 256', stage: 'sft', model: WIDE, sets: sft(4, 256) },
  { name: 'sft wide, 4 × 256, int8', stage: 'sft', model: WIDE, sets: sft(4, 256, 'quantization=int8') },
  {
    name: 'sft wide, 4 × 256, nf4, recomputed',
    stage: 'sft',
    model: WIDE,
    sets: sft(4, 256, 'quantization=nf4', 'sft.recompute=true'),
  },
  { name: 'rm, 8 × 64', stage: 'rm', model: DEBERTA, sets: rm(8, 64) },
  { name: 'rm, 16 × 128', stage: 'rm', model: DEBERTA, sets: rm(16, 128) },
  {
    name: 'rm, 16 × 128, recomputed',
    stage: 'rm',
    model: DEBERTA,
    sets: rm(16, 128, 'rm.recompute=true'),
  },
  { name: 'rm, 8 × 64, adapter', stage: 'rm', model: DEBERTA, sets: rm(8, 64, 'rm.lora.r=16') },
  { name: 'rm, 16 × 128, adapter', stage: 'rm', model: DEBERTA, sets: rm(16, 128, 'rm.lora.r=16') },
  { name: 'grpo narrow, 16 of 32 × 64', stage: 'grpo', model: QWEN3, sets: grpo(16, 32, 64) },
  { name: 'grpo wide, 8 of 16 × 96', stage: 'grpo', model: WIDE, sets: grpo(8, 16, 96) },
  {
    name: 'grpo wide, 8 of 16 × 96, nf4, recomputed, 2 at once',
    stage: 'grpo',
    model: WIDE,
    sets: grpo(
      8,
      16,
      96,
      'quantization=nf4',
      'grpo.recompute=true',
      'grpo.microBatchSize=2',
      'grpo.completionsAtOnce=8',
    ),
  },
];
