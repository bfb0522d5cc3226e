import { z } from 'zod';
import { commonKeys, runKeys } from './common.js';
import { dataSection } from './data.js';
import { dpoSection } from './dpo.js';
import { evaluateSection, generateSection } from './generate.js';
import { grpoSection } from './grpo.js';
import { type RefineContext, key, refuse } from './key.js';
import { loraSection } from './lora.js';
import { pretrainSection } from './pretrain.js';
import { needRewards } from './rewards.js';
import { rmSection } from './rm.js';
import { sftSection } from './sft.js';

/** A model's or adapter's folder, or its name on a hub. */
const folder = () => z.string().min(1);
const section = <T extends z.ZodType>(schema: T, help: string) => key(schema, help);

const data = section(dataSection.prefault({}), 'Rows, prompts and the split.');
const lora = section(loraSection.prefault({}), 'The low-rank adapter that is trained.');
const pretrain = section(pretrainSection.prefault({}), 'Making a base model from scratch.');
const sft = section(sftSection.prefault({}), 'Supervised fine-tuning.');
const rm = section(rmSection.prefault({}), 'Training the reward model.');
const grpo = section(grpoSection.prefault({}), 'Group relative policy optimization.');
const dpo = section(dpoSection.prefault({}), 'Learning from pairs of texts.');
const generate = section(generateSection.prefault({}), 'Writing texts.');
const evaluate = section(evaluateSection.prefault({}), 'Measuring on unseen prompts.');

const models = section(
  z.strictObject({
    policy: key(folder(), 'Folder of the language model that learns to write.', { path: true, model: true }),
    reward: key(folder(), 'Folder of the encoder that becomes the reward model.', { path: true, model: true }),
  }),
  'The models that a recipe starts from.',
);
const policy = key(folder(), 'Folder of the language model.', {
  path: true,
  model: true,
  flag: '--model <dir>',
  from: 'models.policy',
});
const quantization = key(
  z.enum(['float32', 'int8', 'nf4']).default('float32'),
  'Form of the frozen base: float32 as stored, int8 twice as fast with rounded weights, nf4 in a fifth of the memory.',
  { flag: '--quantization <form>' },
);
const writing = key(
  z.enum(['float32', 'int8', 'int4', 'nf4']).default('float32'),
  'Form of the base: float32 as stored, int8 and int4 with rounded weights, int4 fastest for few texts at once, nf4 the weights that were trained on in it.',
  { flag: '--quantization <form>' },
);
const encoder = key(folder(), 'Folder of the encoder, or causal model, to start from.', {
  path: true,
  model: true,
  flag: '--model <dir>',
  from: 'models.reward',
});
const classifier = key(folder(), 'Folder of the reward model.', { path: true, model: true, flag: '--model <dir>' });
const adapter = (help: string) => key(folder().optional(), help, { path: true, model: true, flag: '--adapter <dir>' });
const reward = key(folder(), 'Folder of the reward model.', { path: true, model: true, flag: '--rm <dir>' });
const judge = key(folder().optional(), 'Folder of the reward model.', { path: true, model: true, flag: '--rm <dir>' });
const chooser = key(folder().optional(), 'Folder of the reward model that chooses the best text.', {
  path: true,
  model: true,
  flag: '--rm <dir>',
});

/** Refuses a stage without rows. */
function needData(config: { data: z.output<typeof dataSection> }, context: RefineContext): void {
  if (config.data.dir !== undefined || config.data.file !== undefined) return;
  refuse(context, ['data', 'dir'], 'is missing: there are no rows', 'give --set data.dir=DIR or --set data.file=FILE');
}

/** Refuses a stage of pairs without a file of them. */
function needPairs(config: { data: z.output<typeof dataSection> }, context: RefineContext): void {
  if (config.data.file !== undefined) return;
  const fix = 'give --set data.file=FILE with the columns prompt, chosen and rejected';
  refuse(context, ['data', 'file'], 'is missing: there are no pairs', fix);
}

/** Refuses products in 8 bits on a device that has no kernels for them; `auto` then takes what it has. */
function needKernels(device: string, key: string, precision: string, context: RefineContext): void {
  if (precision === 'float32' || device === 'cpu' || device === 'auto') return;
  const fix = `set ${key}=float32, or compute with --device cpu`;
  refuse(context, key.split('.'), `is ${precision}, but ${device} has no products for it`, fix);
}
const learnsIn = (config: { device: string; rm: z.output<typeof rmSection> }, context: RefineContext): void => {
  needKernels(config.device, 'rm.precision', config.rm.precision, context);
};
const ratesIn = (config: { device: string; grpo: z.output<typeof grpoSection> }, context: RefineContext): void => {
  needKernels(config.device, 'grpo.rewards.model.precision', config.grpo.rewards.model.precision, context);
};

/** Refuses a choice among texts without a reward model. */
function needReward(config: { generate: { bestOf: number }; rm?: string | undefined }, context: RefineContext): void {
  if (config.generate.bestOf === 1 || config.rm !== undefined) return;
  const fix = 'give --rm DIR';
  refuse(context, ['generate', 'bestOf'], `is ${config.generate.bestOf}, but no reward model is there to choose`, fix);
}

/** One schema a stage: the object it is called with, which is what a run's manifest records. */
export const stageSchemas = {
  pretrain: z
    .strictObject({
      ...runKeys('pretrain'),
      model: key(folder().optional(), 'Folder of a base model to go on from.', {
        path: true,
        model: true,
        flag: '--model <dir>',
      }),
      data,
      pretrain,
    })
    .superRefine(needData),
  sft: z
    .strictObject({
      ...runKeys('sft'),
      model: policy,
      quantization,
      adapter: adapter('Adapter folder to go on from.'),
      data,
      lora,
      sft,
    })
    .superRefine(needData),
  rm: z.strictObject({ ...runKeys('rm'), model: encoder, data, rm }).superRefine((config, context) => {
    if (config.rm.objective === 'pairs') needPairs(config, context);
    else needData(config, context);
    learnsIn(config, context);
  }),
  grpo: z
    .strictObject({
      ...runKeys('grpo'),
      model: policy,
      quantization,
      adapter: adapter('Adapter folder that is merged into the model first, as the policy to start from.'),
      rm: judge,
      data,
      lora,
      grpo,
    })
    .superRefine(needData)
    .superRefine(needRewards)
    .superRefine(ratesIn),
  dpo: z
    .strictObject({
      ...runKeys('dpo'),
      model: policy,
      adapter: adapter('Adapter folder that is merged into the model first, as the policy to start from.'),
      quantization,
      data,
      lora,
      dpo,
    })
    .superRefine(needPairs),
  generate: z
    .strictObject({
      ...commonKeys,
      model: policy,
      quantization: writing,
      adapter: adapter('Adapter folder to put on the model.'),
      rm: chooser,
      data,
      generate,
    })
    .superRefine(needReward),
  score: z.strictObject({ ...commonKeys, model: policy, adapter: adapter('Adapter folder to put on the model.') }),
  classify: z.strictObject({ ...commonKeys, model: classifier }),
  evaluate: z
    .strictObject({
      ...runKeys('evaluate'),
      model: policy,
      quantization: writing,
      adapter: adapter('Adapter folder to put on the model.'),
      rm: reward,
      data,
      generate,
      evaluate,
    })
    .superRefine(needData),
  data: z.strictObject({ ...commonKeys, data }),
  doctor: z.strictObject({ ...commonKeys, models, quantization, lora, sft, rm, grpo, generate }),
  run: z
    .strictObject({ ...runKeys('run'), models, quantization, data, lora, sft, rm, grpo, generate, evaluate })
    .superRefine(learnsIn)
    .superRefine(ratesIn)
    .superRefine((config, context) => {
      if (config.data.dir !== undefined) return;
      const fix = 'give data.dir, a folder with sft_train.csv and rm_train.csv';
      if (config.data.file === undefined) refuse(context, ['data', 'dir'], 'is missing: there are no rows', fix);
      else refuse(context, ['data', 'file'], "is given, but the whole pipeline needs each stage's own rows", fix);
    }),
} satisfies Record<string, z.ZodType>;

export type StageName = keyof typeof stageSchemas;
export const STAGE_NAMES = Object.keys(stageSchemas) as StageName[];

/** The resolved configuration of a stage. */
export type StageConfig<Name extends StageName> = z.output<(typeof stageSchemas)[Name]>;

export type PretrainConfig = StageConfig<'pretrain'>;
export type SftConfig = StageConfig<'sft'>;
export type RmConfig = StageConfig<'rm'>;
export type GrpoConfig = StageConfig<'grpo'>;
export type DpoConfig = StageConfig<'dpo'>;
export type GenerateConfig = StageConfig<'generate'>;
export type ScoreConfig = StageConfig<'score'>;
export type ClassifyConfig = StageConfig<'classify'>;
export type EvaluateConfig = StageConfig<'evaluate'>;
export type RunConfig = StageConfig<'run'>;
export type DoctorConfig = StageConfig<'doctor'>;
export type DataCommandConfig = StageConfig<'data'>;
