import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadConfig } from '../../src/config/load.js';
import type { StageContext } from '../../src/runs/events.js';
import { writeTinyClassifier, writeTinyEncoder } from '../support/tiny-encoder.js';
import { writeTinyAdapter, writeTinyModel } from '../support/tiny-model.js';

/** Stages that are crashed: every one that saves checkpoints, and all of them in a row. */
export const SCENARIOS = ['pretrain', 'sft', 'rm', 'grpo', 'dpo', 'run'] as const;
export type Scenario = (typeof SCENARIOS)[number];

/** Makes the models and rows that all scenarios read. */
export async function writeInputs(dir: string): Promise<void> {
  for (const name of ['policy', 'adapter', 'encoder', 'judge', 'data'])
    await mkdir(join(dir, name), { recursive: true });
  await writeTinyModel(join(dir, 'policy'));
  await writeTinyAdapter(join(dir, 'adapter'));
  await writeTinyEncoder(join(dir, 'encoder'));
  await writeTinyClassifier(join(dir, 'judge'));
  const rows = Array.from(
    { length: 24 },
    (_, i) => `猫排队${i},雨伞,键盘,雨伞遇见键盘${'哈'.repeat(i % 5)},${i % 3 === 0 ? 0 : 1}`,
  );
  const header = 'headline,word1,word2,joke,label';
  await writeFile(join(dir, 'data', 'rm_train.csv'), [header, ...rows].join('\n'));
  const pairs = Array.from({ length: 12 }, (_, i) => ({
    prompt: `标题${i}`,
    chosen: `笑了${i}`,
    rejected: `包子${i}`,
  }));
  await writeFile(join(dir, 'pairs.jsonl'), pairs.map((pair) => JSON.stringify(pair)).join('\n'));
  await writeFile(join(dir, 'data', 'sft_train.csv'), [header, ...rows.filter((row) => row.endsWith('1'))].join('\n'));
}

/** Every interval differs, so that checkpoints fall between log lines, evaluations, samples and the ends of rollouts. */
const steps = (section: string, count: number): Record<string, unknown> => ({
  [`${section}.maxSteps`]: count,
  [`${section}.batchSize`]: 2,
  [`${section}.learningRate`]: 0.01,
  [`${section}.loggingSteps`]: 1,
  [`${section}.evalSteps`]: 3,
  [`${section}.saveSteps`]: 2,
});

function flagsOf(scenario: Scenario, inputs: string): Record<string, unknown> {
  const common = {
    'data.dir': join(inputs, 'data'),
    'data.validationFraction': 0.25,
    'data.templates.headline': '标题：{headline}\n',
    'data.templates.words': '词语：{word1}、{word2}\n',
    threads: 1,
  };
  const sft = {
    ...steps('sft', 5),
    'sft.maxLength': 48,
    'sft.sampleSteps': 2,
    'sft.samples': 1,
    'sft.sampling.maxNewTokens': 2,
  };
  const rm = { ...steps('rm', 5), 'rm.maxLength': 48, 'rm.baselines': false };
  const grpo = {
    ...steps('grpo', 6),
    'grpo.numGenerations': 2,
    'grpo.completionsPerRollout': 4,
    'grpo.numIterations': 2,
    'grpo.maxCompletionLength': 3,
    'grpo.evalPrompts': 1,
    'grpo.warmupSteps': 1,
  };
  const lora = { 'lora.r': 2, 'lora.dropout': 0.1 };
  const policy = { model: join(inputs, 'policy') };
  switch (scenario) {
    case 'pretrain':
      return {
        ...common,
        ...steps('pretrain', 5),
        'pretrain.objective': 'masked',
        'pretrain.vocabSize': 200,
        'pretrain.hiddenSize': 16,
        'pretrain.intermediateSize': 32,
        'pretrain.layers': 1,
        'pretrain.heads': 2,
        'pretrain.buckets': 8,
        'pretrain.dropout': 0.1,
        'pretrain.maxLength': 32,
      };
    case 'sft':
      return { ...common, ...policy, ...lora, ...sft };
    case 'rm':
      return { ...common, ...rm, model: join(inputs, 'encoder') };
    case 'grpo':
      return { ...common, ...policy, ...lora, ...grpo, adapter: join(inputs, 'adapter'), rm: join(inputs, 'judge') };
    case 'dpo':
      return {
        ...{ ...policy, ...steps('dpo', 5), 'dpo.maxLength': 32, 'lora.r': 2, threads: 1 },
        ...{ adapter: join(inputs, 'adapter'), 'data.file': join(inputs, 'pairs.jsonl') },
        'data.validationFraction': 0.25,
      };
    case 'run':
      return {
        ...common,
        ...{ ...lora, ...sft, ...rm, ...grpo },
        ...{ 'sft.maxSteps': 2, 'rm.maxSteps': 2, 'rm.lora.r': 2, 'grpo.maxSteps': 2 },
        ...{ 'generate.maxNewTokens': 3, 'evaluate.prompts': 2, 'evaluate.seeds': 1, 'evaluate.bootstrapSamples': 100 },
        'models.policy': join(inputs, 'policy'),
        'models.reward': join(inputs, 'encoder'),
      };
  }
}

/** Runs a scenario in the folder `out`. */
export async function runScenario(
  scenario: Scenario,
  { inputs, out, resume }: { inputs: string; out: string; resume: boolean },
  context: StageContext,
): Promise<void> {
  const flags = { ...flagsOf(scenario, inputs), out, resume };
  switch (scenario) {
    case 'pretrain': {
      const { pretrain } = await import('../../src/stages/pretrain.js');
      await pretrain(await loadConfig({ stage: 'pretrain', flags }), context);
      return;
    }
    case 'sft': {
      const { sft } = await import('../../src/stages/sft.js');
      await sft(await loadConfig({ stage: 'sft', flags }), context);
      return;
    }
    case 'rm': {
      const { rm } = await import('../../src/stages/rm.js');
      await rm(await loadConfig({ stage: 'rm', flags }), context);
      return;
    }
    case 'grpo': {
      const { grpo } = await import('../../src/stages/grpo.js');
      await grpo(await loadConfig({ stage: 'grpo', flags }), context);
      return;
    }
    case 'dpo': {
      const { dpo } = await import('../../src/stages/dpo.js');
      await dpo(await loadConfig({ stage: 'dpo', flags }), context);
      return;
    }
    case 'run': {
      const { runPipeline } = await import('../../src/pipeline.js');
      await runPipeline(await loadConfig({ stage: 'run', flags }), context);
    }
  }
}
