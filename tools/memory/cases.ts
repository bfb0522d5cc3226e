import { DEBERTA, QWEN3 } from '../../bench/random-models.js';
import type { CausalConfig } from '../../src/models/config/causal.js';
import type { ModelConfig } from '../../src/models/config/model-config.js';

/** One run of a stage whose peak memory is measured. */
export interface MemoryCase {
  readonly name: string;
  readonly stage: 'sft' | 'rm' | 'grpo';
  readonly model: ModelConfig;
  /** Settings as `--set` takes them. */
  readonly sets: readonly string[];
}

const NARROW: CausalConfig = {
  ...{ ...QWEN3, vocabSize: 6144, hiddenSize: 512, intermediateSize: 1536, numAttentionHeads: 8 },
  ...{ numKeyValueHeads: 4, headDim: 64, eosTokenIds: [6143], padTokenId: 6142, dtype: 'float32' },
};
const WIDE: CausalConfig = { ...QWEN3, vocabSize: 65536, eosTokenIds: [6143], padTokenId: 6142 };

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
  { name: 'sft narrow, 4 × 64', stage: 'sft', model: NARROW, sets: sft(4, 64) },
  { name: 'sft narrow, 4 × 256', stage: 'sft', model: NARROW, sets: sft(4, 256) },
  { name: 'sft narrow, 16 × 256', stage: 'sft', model: NARROW, sets: sft(16, 256) },
  { name: 'sft narrow, 4 × 256, int8', stage: 'sft', model: NARROW, sets: sft(4, 256, 'quantization=int8') },
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
  { name: 'rm, 16 × 128, int8', stage: 'rm', model: DEBERTA, sets: rm(16, 128, 'rm.precision=int8') },
  { name: 'rm, 8 × 64, adapter', stage: 'rm', model: DEBERTA, sets: rm(8, 64, 'rm.lora.r=16') },
  { name: 'rm, 16 × 128, adapter', stage: 'rm', model: DEBERTA, sets: rm(16, 128, 'rm.lora.r=16') },
  { name: 'grpo narrow, 16 of 32 × 64', stage: 'grpo', model: NARROW, sets: grpo(16, 32, 64) },
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
