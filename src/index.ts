/**
 * Stages as functions. Each takes its resolved configuration (`loadConfig`) and reports events; trainers resolve to their
 * run folder, `generate`, `score` and `classify` yield one answer for each input.
 */
export * from './config/index.js';
export { UserError } from './errors.js';
export { writeRunReport } from './evaluation/run-report.js';
export { runPipeline } from './pipeline.js';
export type { Reward, RewardRow, Scores } from './rewards/reward.js';
export { Interrupted, type StageContext, type StageEvent } from './runs/events.js';
export { classify } from './stages/classify.js';
export { dpo } from './stages/dpo.js';
export { evaluate } from './stages/evaluate.js';
export { generate } from './stages/generate.js';
export { grpo } from './stages/grpo.js';
export { pretrain } from './stages/pretrain.js';
export { rm } from './stages/rm.js';
export { score } from './stages/score.js';
export { sft } from './stages/sft.js';
