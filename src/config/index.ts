export { DEVICES } from './common.js';
export { DEFAULT_TEMPLATES } from './data.js';
export type { LossType } from './grpo-loss.js';
export { jsonSchema } from './json-schema.js';
export { type ConfigSources, loadConfig } from './load.js';
export type { TargetModule } from './lora.js';
export type {
  DataSection,
  EvaluateSection,
  GenerateSection,
  GrpoSection,
  LoraSection,
  PretrainSection,
  RmSection,
  SftSection,
} from './sections.js';
export {
  type ClassifyConfig,
  type DataCommandConfig,
  type DoctorConfig,
  type EvaluateConfig,
  type GenerateConfig,
  type GrpoConfig,
  type PretrainConfig,
  type RmConfig,
  type RunConfig,
  type ScoreConfig,
  type SftConfig,
  STAGE_NAMES,
  type StageConfig,
  type StageName,
  stageSchemas,
} from './stages.js';
export type { Schedule } from './training.js';
export { dottedKeys, type KeyNode, keyTree, type Leaf, type Section, type Table } from './tree.js';
export type {
  ClassifyInput,
  ClassifyOutput,
  GenerateInput,
  GenerateOutput,
  ScoreInput,
  ScoreOutput,
} from './records.js';
