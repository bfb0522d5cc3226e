import { cp, mkdtemp, readFile, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { spawnCli } from '../../tests/e2e/spawn-cli.js';
import { writeTinyClassifier, writeTinyEncoder } from '../../tests/support/tiny-encoder.js';
import { loadTensors, openModelFolder } from '../checkpoints/model-folder.js';
import { readFloats, readHeader } from '../checkpoints/safetensors.js';
import { loadConfig } from '../config/load.js';
import type { ClassifyOutput } from '../config/records.js';
import type { RmConfig } from '../config/stages.js';
import { readRewardModelEvaluation, rewardModelReport } from '../evaluation/reward-model/schema.js';
import { RewardModel } from '../rewards/reward-model.js';
import { Interrupted, type StageContext, type StageEvent } from '../runs/events.js';
import { readMetrics } from '../runs/metrics.js';
import { Runtime } from '../runtime/runtime.js';
import { rm } from './rm.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-rm-'));
const folder = (name: string): string => join(root, name);
afterAll(() => remove(root, { recursive: true }));

const TEMPLATES = { headline: '标题：{headline}，', words: '词语：{word1}、{word2}，' };
const ANIMALS = ['猫', '狗', '兔', '鸡'];
const THINGS = ['雨伞', '键盘', '石头', '月亮'];

/** Two rows of one headline: a humorous one, which laughs, and one that is not. */
function pair(number: number): string[] {
  const [animal, thing] = [ANIMALS[number % 4]!, THINGS[(number >> 2) % 4]!];
  const prompt = `${animal}排队${number},${animal},${thing}`;
  return [`${prompt},${animal}买${thing}${number}，今天笑了,1`, `${prompt},${animal}会${thing}${number}，今天开会,0`];
}

const table = (rows: readonly string[]): string => ['headline,word1,word2,joke,label', ...rows].join('\n');
const numbers = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);

beforeAll(async () => {
  await writeTinyEncoder(folder('encoder'));
  await writeFile(folder('train.csv'), table(numbers(0, 30).flatMap(pair)));
  await writeFile(folder('test.csv'), table(numbers(30, 6).flatMap(pair)));
});

const configOf = (flags: Record<string, unknown> = {}): Promise<RmConfig> =>
  loadConfig({
    stage: 'rm',
    flags: {
      model: folder('encoder'),
      'data.file': folder('train.csv'),
      'data.validationFraction': 0.2,
      'data.templates.headline': TEMPLATES.headline,
      'data.templates.words': TEMPLATES.words,
      'rm.testFile': folder('test.csv'),
      'rm.maxLength': 48,
      'rm.batchSize': 8,
      'rm.epochs': 5,
      'rm.learningRate': 0.01,
      'rm.loggingSteps': 2,
      'rm.saveSteps': 5,
      threads: 1,
      ...flags,
    },
  });

const silent: StageContext = { onEvent: () => undefined };

describe('a whole run', () => {
  const out = folder('run');
  const events: StageEvent[] = [];
  beforeAll(async () => {
    await rm(await configOf({ out }), { onEvent: (event) => events.push(event) });
  });

  it('says once that the head is fresh', () => {
    const warnings = events.filter((event) => event.type === 'warning');
    expect(warnings.map(({ code }) => code)).toEqual(['rm.new-head']);
    expect(warnings[0]?.message).toMatch(/pooler\.dense\.weight.*classifier\.bias/u);
    expect(events.at(-1)).toEqual({ type: 'end', out });
  });

  it('learns: loss, cross entropy and KL are logged, the loss falls, the accuracy rises', () => {
    const logged = readMetrics(join(out, 'metrics.jsonl')).filter(({ values }) => 'loss' in values);
    const [first, last] = [logged[0]!.values, logged.at(-1)!.values];
    for (const { loss, ce, rdrop_kl: kl } of [first, last]) expect(loss).toBeCloseTo(ce! + 4 * kl!, 4);
    expect(last['ce']).toBeLessThan(first['ce']! / 2);
    expect(last['accuracy']).toBeGreaterThan(0.9);
    expect(first['grad_norm']).toBeGreaterThan(0);
  });

  it('looks at the validation rows at the end of every epoch and keeps the weights that are best there', async () => {
    const looks = readMetrics(join(out, 'metrics.jsonl')).filter(({ values }) => 'eval_f1' in values);
    expect(looks.map(({ epoch }) => epoch)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(Object.keys(looks[0]!.values)).toEqual(
      ['loss', 'accuracy', 'precision', 'recall', 'f1', 'roc_auc', 'ece'].map((name) => `eval_${name}`),
    );
    const trained = looks.slice(1);
    const best = Math.max(...trained.map(({ values }) => values['eval_roc_auc']!));
    const equal = trained.filter((look) => look.values['eval_roc_auc'] === best);
    // Of those that rank equally well the one with the lowest loss.
    const lowest = Math.min(...equal.map((look) => look.values['eval_loss']!));
    const { step, values } = equal.find((look) => look.values['eval_loss'] === lowest)!;
    expect(step).toBeGreaterThan(equal[0]!.step);
    const evaluation = (await readRewardModelEvaluation(out))!;
    expect(evaluation.step).toBe(step);
    expect(evaluation.validation?.metrics).toMatchObject({ rocAuc: best, logLoss: values['eval_loss'] });

    await expectWeightsOf(step, out);
  });

  it('leaves a classifier with labels, tokenizer and the length that texts are cut to', async () => {
    const { config, weights } = await openModelFolder(join(out, 'model'));
    expect(config).toMatchObject({
      architecture: 'DebertaV2ForSequenceClassification',
      labels: ['not_humorous', 'humorous'],
    });
    expect([...weights.keys()].filter((name) => name.startsWith('cls.'))).toEqual([]);
    const tokenizer = JSON.parse(await readFile(join(out, 'model/tokenizer_config.json'), 'utf8')) as object;
    expect(tokenizer).toMatchObject({ model_max_length: 48, cls_token: '[CLS]' });
  });

  it('measures validation and test rows by text and by template, and the baselines on the same texts', async () => {
    const { validation, test, baselines, added } = (await readRewardModelEvaluation(out))!;
    expect(test).toMatchObject({ rows: 12, metrics: { rows: 24 } });
    expect(Object.keys(test!.templates)).toEqual(['headline', 'words']);
    expect(test!.templates['words']?.rows).toBe(12);
    // What the weights are chosen by; the first that rank all texts rightly need not yet split them at one half.
    expect(test!.metrics.rocAuc).toBeGreaterThan(0.9);
    expect(test!.metrics.reliability).toHaveLength(10);
    expect(test!.metrics.confusion.flat().reduce((a, b) => a + b, 0)).toBe(24);
    expect(baselines.map(({ name }) => name)).toEqual(['majority', 'length', 'prompt', 'text', 'input', 'everything']);
    for (const { metrics } of baselines) expect(metrics.rows).toBe(validation!.metrics.rows);
    // Both rows of a headline have one prompt, and both texts one length: neither gives anything away.
    for (const rival of ['majority', 'length', 'prompt']) {
      expect(baselines.find(({ name }) => name === rival)?.metrics.rocAuc).toBe(0.5);
    }
    expect(added?.aucWith).toBeGreaterThan(added!.aucWithout);
    expect(added?.difference.rows).toBe(validation!.rows);
    expect(rewardModelReport((await readRewardModelEvaluation(out))!)).toMatchObject({ evaluatedOn: 'validation' });
    expect(await readFile(join(out, 'report.md'), 'utf8')).toContain('Reward model');
    expect(await readFile(join(out, 'report.html'), 'utf8')).toContain('Confusion matrix');
  });

  it('is what classify computes from the command line, in the order of its input', async () => {
    const inputs = [
      { prompt: TEMPLATES.headline.replace('{headline}', '猫'), completion: '猫买雨伞，笑了' },
      { text: '狗会键盘，今天开会' },
      { input_ids: [2, 40, 41, 42, 3] },
      { text: '笑'.repeat(100) },
    ];
    await writeFile(folder('in.jsonl'), inputs.map((input) => JSON.stringify(input)).join('\n'));
    const { code, stdout, stderr } = await spawnCli([
      ...['classify', '--model', join(out, 'model'), '--input', folder('in.jsonl'), '--threads', '1'],
    ]);
    expect(stderr).not.toContain('Error');
    expect(code).toBe(0);
    const outputs = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as ClassifyOutput);

    const runtime = new Runtime({ threads: 1 });
    const model = await RewardModel.open(runtime, join(out, 'model'));
    expect(model.maxLength).toBe(48);
    const ids = inputs.map((input) => input.input_ids ?? model.encode(input.text ?? input.prompt + input.completion));
    const logits = await model.logitsOfIds(ids, { batchSize: 16 });
    await runtime.close();
    expect(outputs.map((output) => output.logits)).toEqual(logits);
    for (const { logits: row, probability } of outputs) {
      expect(probability).toBeCloseTo(Math.exp(row[1]!) / (Math.exp(row[0]!) + Math.exp(row[1]!)), 9);
    }
    expect(outputs[0]!.probability).toBeGreaterThan(outputs[1]!.probability);
  });
});

/** A context that stops the stage after some steps. */
function until(step: number): StageContext {
  const controller = new AbortController();
  const onEvent = (event: StageEvent): void => {
    if (event.type === 'progress' && event.task === 'rm' && event.done === step) controller.abort();
  };
  return { signal: controller.signal, onEvent };
}

/** Expects the model that a run left to have the weights of a step. */
async function expectWeightsOf(step: number, out: string): Promise<void> {
  const written = await openModelFolder(join(out, 'model'));
  const names = [...written.weights.keys()];
  const weights = await loadTensors(written.weights, names);
  const { tensors } = await readHeader(join(out, `checkpoints/step-${step}/optimizer.safetensors`));
  for (const name of names) {
    expect((await readFloats(tensors.get(`weight/${name}`)!)).data).toEqual(weights.get(name)!.data);
  }
}

it('goes back to the weights that were best where later steps ruined them', async () => {
  const out = folder('ruined');
  const flags = { 'rm.epochs': 3, 'rm.schedule': 'constant', 'rm.warmupRatio': 0, 'rm.baselines': false, out };
  await expect(rm(await configOf(flags), until(22))).rejects.toThrow(Interrupted);
  // From here on every step moves every weight by about 100: whatever was learned is gone.
  await rm(await configOf({ ...flags, 'rm.learningRate': 100, resume: true, force: true }), silent);
  const looks = readMetrics(join(out, 'metrics.jsonl')).filter(({ values }) => 'eval_roc_auc' in values);
  expect(looks.map(({ step }) => step)).toEqual([0, 11, 22, 33]);
  const [, ...trained] = looks.map(({ values }) => values['eval_roc_auc']!);
  const { step, validation, test } = (await readRewardModelEvaluation(out))!;
  expect(step).toBeLessThan(33);
  expect(Math.max(...trained)).toBeGreaterThan(0.9);
  expect(trained.at(-1)).toBeLessThan(0.7);
  expect(validation?.metrics.rocAuc).toBe(Math.max(...trained));
  expect(test?.metrics.rocAuc).toBeGreaterThan(0.9);
  await expectWeightsOf(step, out);
});

it.each(['float32', 'int8'])(
  'goes on in %s after an interruption as if there had been none, bit for bit',
  async (precision) => {
    const steps = { 'rm.maxSteps': 8, 'rm.evalSteps': 3, 'rm.saveSteps': 4 };
    const flags = { ...steps, 'rm.precision': precision, 'rm.baselines': false };
    const [whole, parts] = [folder(`whole-${precision}`), folder(`parts-${precision}`)];
    const files = async (out: string): Promise<string[]> =>
      Promise.all(
        ['model/model.safetensors', 'metrics.jsonl', 'evaluation.json'].map((name) =>
          readFile(join(out, name), 'latin1'),
        ),
      );
    await rm(await configOf({ ...flags, out: whole }), silent);
    await expect(rm(await configOf({ ...flags, out: parts }), until(5))).rejects.toThrow(Interrupted);
    const events: StageEvent[] = [];
    await rm(await configOf({ ...flags, out: parts, resume: true }), {
      onEvent: (event) => events.push(event),
    });
    expect(events.filter(({ type }) => type === 'warning')).toEqual([]);
    expect(await files(parts)).toEqual(await files(whole));
  },
);

it('stops among the baselines too, and goes on from there', async () => {
  const controller = new AbortController();
  const flags = { 'rm.maxSteps': 2, 'rm.testFile': undefined, out: folder('late') };
  const stopping: StageContext = {
    signal: controller.signal,
    onEvent: (event) => {
      if (event.type === 'progress' && event.task === 'baselines') controller.abort();
    },
  };
  await expect(rm(await configOf(flags), stopping)).rejects.toThrow(Interrupted);
  await rm(await configOf({ ...flags, resume: true }), silent);
  const { baselines, test } = (await readRewardModelEvaluation(folder('late')))!;
  expect(baselines).toHaveLength(6);
  expect(test).toBeNull();
});

it('takes a classifier whole, other rates of dropout, and rows of which none is held out', async () => {
  await writeTinyClassifier(folder('classifier'), { changes: { labels: ['dull', 'funny'] } });
  const events: StageEvent[] = [];
  const flags = {
    model: folder('classifier'),
    'data.validationFraction': 0,
    'rm.testFile': undefined,
    'rm.maxSteps': 1,
    'rm.maxLength': 8,
    'rm.dropout': 0.3,
    'rm.rdropAlpha': 0,
    out: folder('again'),
  };
  await rm(await configOf(flags), { onEvent: (event) => events.push(event) });
  const codes = events.flatMap((event) => (event.type === 'warning' ? [event.code] : []));
  expect(codes).toEqual(['rm.truncated', 'rm.no-validation']);
  const { config } = await openModelFolder(folder('again/model'));
  expect(config).toMatchObject({
    labels: ['dull', 'funny'],
    hiddenDropoutProb: 0.3,
    attentionProbsDropoutProb: 0.3,
    classifierDropout: 0.3,
  });
  expect(await readRewardModelEvaluation(folder('again'))).toMatchObject({ validation: null, test: null, step: 1 });
});

describe('refuses, before anything is written,', () => {
  const refused = async (flags: Record<string, unknown>): Promise<unknown> => {
    const out = folder('refused');
    const thrown: unknown = await rm(await configOf({ ...flags, out }), silent).catch((error: unknown) => error);
    await expect(readFile(join(out, 'manifest.json'))).rejects.toThrow('ENOENT');
    return thrown;
  };

  it('rows without labels', async () => {
    await writeFile(folder('unlabelled.csv'), 'headline,word1,word2,joke\n猫,猫,雨伞,笑了');
    expect(await refused({ 'data.file': folder('unlabelled.csv') })).toMatchObject({
      code: 'data.missing-column',
      where: `${folder('unlabelled.csv')}:1`,
      exitCode: 2,
    });
  });

  it('rows of one label', async () => {
    await writeFile(folder('one.csv'), table(numbers(0, 9).map((i) => pair(i)[0]!)));
    expect(await refused({ 'data.file': folder('one.csv') })).toMatchObject({ code: 'rm.one-label', exitCode: 2 });
  });

  it('a tokenizer that is larger than the model', async () => {
    await writeTinyClassifier(folder('small'), { changes: { vocabSize: 100 } });
    expect(await refused({ model: folder('small') })).toMatchObject({ code: 'tokenizer.does-not-fit', exitCode: 2 });
  });

  it('a classifier of other labels, and an encoder that lacks a weight', async () => {
    await writeTinyClassifier(folder('three'), { changes: { labels: ['a', 'b', 'c'] } });
    expect(await refused({ model: folder('three') })).toMatchObject({ code: 'model.labels', exitCode: 2 });
    await cp(folder('encoder'), folder('deeper'), { recursive: true });
    const config = await readFile(folder('deeper/config.json'), 'utf8');
    await writeFile(folder('deeper/config.json'), config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'));
    expect(await refused({ model: folder('deeper') })).toMatchObject({ code: 'checkpoint.missing-tensor' });
  });
});
