import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { DEFAULT_TEMPLATES } from './data.js';
import { type ConfigSources, loadConfig } from './load.js';
import type { StageName } from './stages.js';

let cwd: string;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'duanzi-config-'));
});
afterEach(() => rm(cwd, { recursive: true }));

const SFT = { model: 'base', 'data.dir': 'data' };

async function yaml(text: string, name = 'recipe.yaml'): Promise<string> {
  await writeFile(join(cwd, name), text);
  return name;
}

async function refusal<Name extends StageName>(sources: ConfigSources<Name>): Promise<UserError> {
  const outcome: unknown = await loadConfig({ cwd, ...sources }).then(
    () => undefined,
    (error: unknown) => error,
  );
  if (outcome instanceof UserError) return outcome;
  throw new Error(`expected a refusal, got ${String(outcome)}`);
}

describe('defaults', () => {
  it('are the published settings', async () => {
    const sft = await loadConfig({ stage: 'sft', flags: SFT, cwd });
    expect(sft.sft).toMatchObject({
      maxLength: 256,
      batchSize: 4,
      epochs: 3,
      learningRate: 2e-5,
      schedule: 'constant',
    });
    expect(sft.sft).toMatchObject({ weightDecay: 0.01, maxGradNorm: 1, completionOnlyLoss: true });
    expect(sft.sft.sampling).toEqual({ temperature: 0.7, topP: 0.9, topK: 0, maxNewTokens: 100 });
    expect(sft.lora).toMatchObject({ r: 16, alpha: 32, dropout: 0.05 });
    expect(sft.lora.targetModules).toHaveLength(7);
    expect(sft.data.templates).toEqual(DEFAULT_TEMPLATES);
    expect(sft.data).toMatchObject({ validationFraction: 0.05, splitSeed: 1 });

    const grpo = await loadConfig({ stage: 'grpo', flags: { ...SFT, rm: 'rm' }, cwd });
    expect(grpo.grpo).toMatchObject({ learningRate: 1e-6, warmupSteps: 50, completionsPerRollout: 64, beta: 0.05 });

    const reward = await loadConfig({ stage: 'rm', flags: SFT, cwd });
    expect(reward.rm).toMatchObject({ maxLength: 128, epochs: 5, warmupRatio: 0.1, rdropAlpha: 4, schedule: 'linear' });
  });

  it('take the threads of the machine and a run folder below the working directory', async () => {
    const config = await loadConfig({ stage: 'sft', flags: SFT, cwd });
    expect(config.threads).toBe(availableParallelism());
    expect(config.out).toBe(join(cwd, 'runs/sft'));
    expect(config.resume).toBe(false);
  });
});

describe('precedence', () => {
  it('is defaults, earlier file, later file, --set, flag', async () => {
    const first = await yaml('seed: 2\nsft: { epochs: 2, batchSize: 2, maxLength: 20 }\nlora: { r: 2 }', 'a.yaml');
    const second = await yaml('seed: 3\nsft:\n  batchSize: 3\n  maxLength: 30\n', 'b.yaml');
    const sets = ['sft.maxLength=40', 'seed=4'];
    const config = await loadConfig({ stage: 'sft', files: [first, second], sets, flags: { ...SFT, seed: '5' }, cwd });
    expect(config.lora.r).toBe(2);
    expect(config.sft).toMatchObject({ epochs: 2, batchSize: 3, maxLength: 40 });
    expect(config.seed).toBe(5);
  });

  it('lets null take a setting back', async () => {
    const files = [await yaml('sft: { maxSteps: 7, epochs: 9 }')];
    const config = await loadConfig({
      stage: 'sft',
      files,
      sets: ['sft.maxSteps=null', 'sft.epochs='],
      flags: SFT,
      cwd,
    });
    expect(config.sft.maxSteps).toBeUndefined();
    expect(config.sft.epochs).toBe(3);
  });

  it('replaces templates by a file and joins an entry of --set', async () => {
    const files = [await yaml('data:\n  templates:\n    plain: "题：{headline}"\n')];
    const sets = ['data.templates.words="词：{word1}\\n"', 'data.templates.raw=a: {headline} # "x"'];
    const config = await loadConfig({ stage: 'sft', files, sets, flags: SFT, cwd });
    expect(config.data.templates).toEqual({
      plain: '题：{headline}',
      words: '词：{word1}\n',
      raw: 'a: {headline} # "x"',
    });
    const joined = await loadConfig({ stage: 'sft', sets: ['data.templates.more={headline}'], flags: SFT, cwd });
    expect(joined.data.templates).toEqual({ ...DEFAULT_TEMPLATES, more: '{headline}' });
  });

  it('reads values of --set as their keys need them', async () => {
    const sets = [
      'lora.targetModules=q_proj, v_proj',
      'sft.learningRate=1e-4',
      'sft.completionOnlyLoss=false',
      'data.columns.label=1',
    ];
    const config = await loadConfig({ stage: 'sft', sets, flags: SFT, cwd });
    expect(config.lora.targetModules).toEqual(['q_proj', 'v_proj']);
    expect(config.sft).toMatchObject({ learningRate: 1e-4, completionOnlyLoss: false });
    expect(config.data.columns.label).toBe('1');
  });
});

describe('paths', () => {
  it('are relative to the YAML file that says them, else to the working directory', async () => {
    await mkdir(join(cwd, 'recipes'));
    const file = await yaml('model: ../base\ndata: { dir: ../rows }\nout: here\n', 'recipes/r.yaml');
    const config = await loadConfig({ stage: 'sft', files: [file], flags: { adapter: 'a' }, cwd });
    expect(config).toMatchObject({ model: join(cwd, 'base'), out: join(cwd, 'recipes/here'), adapter: join(cwd, 'a') });
    const moved = await loadConfig({ stage: 'sft', files: [file], sets: ['data.dir=x', 'model=/abs'], cwd });
    expect(moved).toMatchObject({ model: '/abs', data: { dir: join(cwd, 'x') } });
  });
});

describe('a recipe', () => {
  const RECIPE = [
    'models: { policy: p, reward: r }',
    'data: { dir: d }',
    'rm: { epochs: 2 }',
    'grpo: { beta: 0.1 }',
    'sft: { maxSteps: 3 }',
  ].join('\n');

  it('serves the pipeline and every stage', async () => {
    const files = [await yaml(RECIPE)];
    const run = await loadConfig({ stage: 'run', files, cwd });
    expect(run).toMatchObject({ models: { policy: join(cwd, 'p') }, rm: { epochs: 2 }, grpo: { beta: 0.1 } });
    expect(await loadConfig({ stage: 'sft', files, cwd })).toMatchObject({
      model: join(cwd, 'p'),
      sft: { maxSteps: 3 },
    });
    expect(await loadConfig({ stage: 'rm', files, cwd })).toMatchObject({ model: join(cwd, 'r'), rm: { epochs: 2 } });
    const grpo = await loadConfig({ stage: 'grpo', files, flags: { rm: 'x' }, cwd });
    expect(grpo).toMatchObject({ model: join(cwd, 'p'), rm: join(cwd, 'x'), grpo: { beta: 0.1 } });
  });

  it('may be empty, and may say an empty section', async () => {
    const files = [await yaml('# nothing\n', 'a.yaml'), await yaml('sft:\nlora:\n', 'b.yaml')];
    expect((await loadConfig({ stage: 'sft', files, flags: SFT, cwd })).sft.batchSize).toBe(4);
  });

  it('may use anchors', async () => {
    const files = [await yaml('sft: &shared { batchSize: 2, maxSteps: &n 9 }\nrm: *shared\ngrpo: { maxSteps: *n }\n')];
    expect((await loadConfig({ stage: 'rm', files, flags: SFT, cwd })).rm).toMatchObject({ batchSize: 2, maxSteps: 9 });
  });
});

describe('refusals', () => {
  it.each([
    ['sft: { learning_rate: 1 }', 'sft.learning_rate', 'sft.learningRate', ':1:8'],
    ['\nlearningRate: 1', 'learningRate', 'sft.learningRate', ':2:1'],
    ['grpo:\n  numGeneration: 4', 'grpo.numGeneration', 'grpo.numGenerations', ':2:3'],
    ['lora: { rank: 4 }', 'lora.rank', 'lora.', ':1:9'],
    ['dta: { dir: x }', 'dta', 'data', ':1:1'],
  ])('name the nearest key for %j', async (text, key, near, place) => {
    const error = await refusal({ stage: 'sft', files: [await yaml(text)], flags: SFT });
    expect(error).toMatchObject({ code: 'config.unknown-key', exitCode: 2, message: `${key} is not a known key.` });
    expect(error.where).toBe(join(cwd, 'recipe.yaml') + place);
    expect(error.fix).toContain(`Did you mean ${near}`);
  });

  it.each([
    [['sft.lr=1'], 'config.unknown-key', /sft\.lr is not a known key/],
    [['grpo.beta=1'], 'config.other-stage', /grpo\.beta belongs to another stage/],
    [['sft=1'], 'config.section', /sft is a section/],
    [['sft.epochs'], 'config.assignment', /"sft\.epochs" is not of the form key=value/],
    [['sft.epochs=many'], 'config.value', /sft\.epochs is "many"; expected a number above 0/],
    [['sft.batchSize=1.5'], 'config.value', /sft\.batchSize is 1\.5; expected a whole number of at least 1/],
    [['sft.maxLength=7'], 'config.value', /sft\.maxLength is 7; expected a whole number of at least 8/],
    [
      ['lora.targetModules=[q_proj, x]'],
      'config.value',
      /lora\.targetModules\.1 is "x"; expected a list, each one of q_proj/,
    ],
    [['device=tpu'], 'config.value', /device is "tpu"; expected one of cpu, webgpu, cuda, coreml, dml, auto\./],
    [['data.templates=x'], 'config.table', /data\.templates holds texts by name/],
    [['data.file=x'], 'config.combination', /data\.file is given together with data\.dir/],
    [['sft.warmupSteps=5'], 'config.combination', /sft\.warmupSteps is 5, but the schedule constant has no/],
    [['lora.targetModules=q_proj,q_proj'], 'config.combination', /names q_proj twice/],
  ])('%j: %s', async (sets, code, message) => {
    const error = await refusal({ stage: 'sft', sets, flags: SFT });
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.where).toMatch(/^--set|^data/);
    expect(error.fix).toBeTruthy();
  });

  it('name what is missing and how to give it', async () => {
    const error = await refusal({ stage: 'sft', flags: { 'data.dir': 'd' } });
    expect(error).toMatchObject({ code: 'config.missing', fix: 'Give --model <dir>.' });
    expect((await refusal({ stage: 'sft', flags: { model: 'm' } })).message).toMatch(/data\.dir is missing/);
  });

  it('name the flag that was wrong', async () => {
    const error = await refusal({ stage: 'sft', flags: { ...SFT, threads: '0' } });
    expect(error).toMatchObject({
      where: '--threads',
      message: 'threads is 0; expected a whole number of at least 1.',
    });
  });

  it.each([
    [{ 'grpo.completionsPerRollout': 30, 'grpo.batchSize': 15 }, /30, no multiple of numGenerations \(4\)/],
    [{ 'grpo.batchSize': 24 }, /64, no multiple of batchSize \(24\)/],
    [{ 'grpo.numGenerations': 1 }, /numGenerations is 1; expected a whole number of at least 2/],
  ])('of grpo: %j', async (flags, message) => {
    expect((await refusal({ stage: 'grpo', flags: { ...SFT, rm: 'r', ...flags } })).message).toMatch(message);
  });

  it('of the others', async () => {
    const best = { model: 'm', 'generate.bestOf': 4 };
    expect((await refusal({ stage: 'generate', flags: best })).fix).toBe('Give --rm DIR.');
    const cold = await refusal({ stage: 'generate', flags: { ...best, rm: 'r', 'generate.temperature': 0 } });
    expect(cold.message).toMatch(/temperature 0/);
    const flags = { 'models.policy': 'p', 'models.reward': 'r', 'data.file': 'f' };
    expect((await refusal({ stage: 'run', flags })).message).toMatch(/data\.file is given, but the whole pipeline/);
    const rounded = { model: 'm', 'data.dir': 'd', 'rm.precision': 'int8', device: 'webgpu' };
    const onGpu = await refusal({ stage: 'rm', flags: rounded });
    expect(onGpu.message).toMatch(/rm\.precision is int8, but webgpu has no products for it/);
    expect(onGpu.fix).toBe('Set rm.precision=float32, or compute with --device cpu.');
    const rated = { ...SFT, rm: 'r', device: 'webgpu', 'grpo.rewards.model.precision': 'int8' };
    expect((await refusal({ stage: 'grpo', flags: rated })).message).toMatch(/grpo\.rewards\.model\.precision is int8/);
    const odd = { 'data.dir': 'd', 'pretrain.kvHeads': 3 };
    expect((await refusal({ stage: 'pretrain', flags: odd })).message).toMatch(/kvHeads is 3, which does not divide/);
  });

  it('come all at once, each with its place', async () => {
    const files = [await yaml('sft:\n  epochs: no\n  lr: 1\n')];
    const error = await refusal({ stage: 'sft', files, sets: ['seed=-1'], flags: SFT });
    expect(error.code).toBe('config.invalid');
    expect(error.message).toMatch(/^3 settings are wrong:/);
    expect(error.message).toMatch(/sft\.epochs is "no".*recipe\.yaml:2:3/);
    expect(error.message).toMatch(/sft\.lr is not.*recipe\.yaml:3:3/);
    expect(error.message).toMatch(/seed is -1.*--set seed/);
  });
});

describe('YAML faults', () => {
  it.each([
    ['seed: 1\nsft: { epochs: 2\nlora: {}\n', /^config\.yaml$/, /recipe\.yaml:[23]:/],
    ['seed: 1\nseed: 2\n', /^config\.yaml$/, /recipe\.yaml:2:1$/],
    ['a: b: c\n', /^config\.yaml$/, /recipe\.yaml:1:/],
    ['- 1\n', /^config\.yaml$/, /recipe\.yaml:1:1$/],
    ['sft: 3\n', /^config\.section$/, /recipe\.yaml:1:1$/],
    ['grpo: 3\n', /^config\.section$/, /recipe\.yaml:1:1$/],
  ])('%j', async (text, code, where) => {
    const error = await refusal({ stage: 'sft', files: [await yaml(text)], flags: SFT });
    expect(error.code).toMatch(code);
    expect(error.where).toMatch(where);
  });

  it('names a file that is not there or not UTF-8', async () => {
    expect(await refusal({ stage: 'sft', files: ['none.yaml'] })).toMatchObject({ code: 'config.unreadable' });
    await writeFile(join(cwd, 'gbk.yaml'), Buffer.from([0x6f, 0x75, 0x74, 0x3a, 0x20, 0xb6, 0xce]));
    expect(await refusal({ stage: 'sft', files: ['gbk.yaml'] })).toMatchObject({ code: 'config.encoding' });
  });
});
