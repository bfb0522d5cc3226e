import type { z } from 'zod';
import type { dataSection } from './data.js';
import type { dpoSection } from './dpo.js';
import type { evaluateSection, generateSection } from './generate.js';
import type { grpoSection } from './grpo.js';
import type { loraSection } from './lora.js';
import type { pretrainSection } from './pretrain.js';
import type { rmSection } from './rm.js';
import type { sftSection } from './sft.js';

/** The resolved sections, for code that needs one and not a whole stage. */
export type DataSection = z.output<typeof dataSection>;
export type LoraSection = z.output<typeof loraSection>;
export type PretrainSection = z.output<typeof pretrainSection>;
export type SftSection = z.output<typeof sftSection>;
export type RmSection = z.output<typeof rmSection>;
export type GrpoSection = z.output<typeof grpoSection>;
export type DpoSection = z.output<typeof dpoSection>;
export type GenerateSection = z.output<typeof generateSection>;
export type EvaluateSection = z.output<typeof evaluateSection>;
