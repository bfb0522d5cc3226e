import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import { Interrupted, type StageContext, type StageEvent } from '../../src/runs/events.js';
import { readScalars } from '../../src/runs/tensorboard/reader.js';
import { pretrain } from '../../src/stages/pretrain.js';
import { sft } from '../../src/stages/sft.js';
import { contentOf } from '../support/folder-content.js';
import { writeTinyModel } from '../support/tiny-model.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duanzi-resume-'));
  await writeTinyModel(join(folder, 'model'));
  const rows = Array.from(
    { length: 20 },
    (_, i) => `猫排队${i},雨伞${i},键盘,雨伞${i}遇见键盘，猫都笑了${'哈'.repeat(i % 5)}`,
  );
  await writeFile(join(folder, 'rows.csv'), ['headline,word1,word2,joke', ...rows].join('\n'));
});
afterAll(() => rm(folder, { recursive: true }));

const STEPS = 6;
/** With these intervals, steps 3 and 5 fall between log lines, evaluations and checkpoints. */
const settings = (section: 'sft' | 'pretrain'): Record<string, unknown> => ({
  'data.file': join(folder, 'rows.csv'),
  'data.validationFraction': 0.2,
  threads: 1,
  [`${section}.maxSteps`]: STEPS,
  [`${section}.batchSize`]: 2,
  [`${section}.loggingSteps`]: 3,
  [`${section}.evalSteps`]: 4,
  [`${section}.saveSteps`]: 2,
  [`${section}.learningRate`]: 0.01,
});

type Run = (out: string, resume: boolean, context: StageContext) => Promise<string>;

const runSft: Run = (out, resume, context) => runSftWith({}, out, resume, context);

async function runSftWith(changes: object, ...[out, resume, context]: Parameters<Run>): Promise<string> {
  const flags = {
    ...settings('sft'),
    model: join(folder, 'model'),
    'data.templates.headline': '标题：{headline}\n',
    'data.templates.words': '词语：{word1}、{word2}\n',
    'lora.r': 4,
    'lora.dropout': 0.2,
    'sft.gradientAccumulationSteps': 2,
    'sft.maxLength': 64,
    'sft.sampleSteps': 2,
    'sft.samples': 1,
    'sft.sampling.maxNewTokens': 3,
    out,
    resume,
    ...changes,
  };
  return sft(await loadConfig({ stage: 'sft', flags }), context);
}

const runPretrain: Run = async (out, resume, context) => {
  const flags = {
    ...settings('pretrain'),
    'pretrain.objective': 'masked',
    'pretrain.vocabSize': 300,
    'pretrain.hiddenSize': 16,
    'pretrain.intermediateSize': 32,
    'pretrain.layers': 1,
    'pretrain.heads': 2,
    'pretrain.buckets': 8,
    'pretrain.dropout': 0.2,
    'pretrain.maxLength': 48,
    out,
    resume,
  };
  return pretrain(await loadConfig({ stage: 'pretrain', flags }), context);
};

/** A context that stops the stage, or makes it crash, once it has done `step` steps. */
function until(step: number, how: 'stop' | 'crash', events: StageEvent[] = []): StageContext {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    onEvent: (event) => {
      events.push(event);
      if (event.type !== 'progress' || event.done !== step) return;
      if (how === 'crash') throw new Error('the lights went out');
      controller.abort();
    },
  };
}

/** A context that stops the stage as soon as it is ready to begin. */
function onStart(events: StageEvent[]): StageContext {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    onEvent: (event) => {
      events.push(event);
      if (event.type === 'start') controller.abort();
    },
  };
}

const stages = [
  { name: 'sft', run: runSft, result: 'adapter/adapter_model.safetensors' },
  { name: 'pretrain', run: runPretrain, result: 'model/model.safetensors' },
];
const files = async (out: string, result: string): Promise<{ weights: Buffer; metrics: string; curves: unknown }> => ({
  weights: await readFile(join(out, result)),
  metrics: await readFile(join(out, 'metrics.jsonl'), 'utf8'),
  curves: Array.from(readScalars(join(out, 'tensorboard')), ([tag, points]) => [
    tag,
    points.map(({ step, value }) => [step, value]),
  ]).sort(),
});
const silent: StageContext = { onEvent: () => undefined };

it.each(stages)(
  '$name that crashed and was stopped ends as if it had not, bit for bit',
  async ({ name, run, result }) => {
    const whole = join(folder, name, 'whole');
    const broken = join(folder, name, 'broken');
    await run(whole, false, silent);

    await expect(run(broken, false, until(3, 'crash'))).rejects.toThrow('the lights went out');
    const resumed: StageEvent[] = [];
    await expect(run(broken, true, until(5, 'stop', resumed))).rejects.toThrow(Interrupted);
    await expect(files(broken, result)).rejects.toThrow('ENOENT');
    await run(broken, true, { onEvent: (event) => resumed.push(event) });

    expect(resumed.filter(({ type }) => type === 'warning')).toEqual([]);
    // The crash lost the step since the last checkpoint, which is taken again; stopping lost none.
    expect(resumed.flatMap((event) => (event.type === 'progress' ? [event.done] : []))).toEqual([3, 4, 5, 6]);
    expect(await files(broken, result)).toEqual(await files(whole, result));
  },
);

it.each(stages)(
  '$name stopped before it began, before an evaluation and before the last goes on with that',
  async ({ name, run, result }) => {
    const out = join(folder, name, 'stopped');
    const events: StageEvent[] = [];
    const stopped = async (at: 'start' | number, resume: boolean): Promise<void> => {
      const context = at === 'start' ? onStart(events) : until(at, 'stop', events);
      await expect(run(out, resume, context)).rejects.toThrow(Interrupted);
    };
    await stopped('start', false);
    await stopped(4, true);
    await stopped(STEPS, true);
    await run(out, true, { onEvent: (event) => events.push(event) });
    expect(events.filter(({ type }) => type === 'warning')).toEqual([]);
    expect(events.flatMap((event) => (event.type === 'progress' ? [event.done] : []))).toEqual([1, 2, 3, 4, 5, 6]);
    expect(await files(out, result)).toEqual(await files(join(folder, name, 'whole'), result));
  },
);

it('sft stopped again and again, wherever it is, ends as if it had not', async () => {
  const out = join(folder, 'sft', 'harried');
  let resume = false;
  for (const delay of [0, 5, 10, 20, 30, 40, 50, 70, 90, 120]) {
    const controller = new AbortController();
    const context: StageContext = {
      signal: controller.signal,
      onEvent: ({ type }) => {
        if (type === 'start')
          setTimeout(() => {
            controller.abort();
          }, delay);
      },
    };
    const outcome = await runSft(out, resume, context).catch((error: unknown) => error);
    resume = true;
    if (outcome === out) break;
    expect(outcome).toBeInstanceOf(Interrupted);
  }
  await runSft(out, true, silent);
  const { result } = stages[0]!;
  expect(await files(out, result)).toEqual(await files(join(folder, 'sft', 'whole'), result));
});

it('a checkpoint of an adapter of another size is refused, and stays', async () => {
  const out = join(folder, 'sft', 'whole');
  const before = await contentOf(join(out, 'checkpoints'));
  await expect(runSftWith({ 'lora.r': 2 }, out, true, silent)).rejects.toMatchObject({ code: 'run.changed-config' });
  await expect(runSftWith({ 'lora.r': 2, force: true }, out, true, silent)).rejects.toMatchObject({
    code: 'checkpoint.model',
    message: expect.stringMatching(/'weight\/.*lora_A.*' is \(4, 16\) there and \(2, 16\) here/) as string,
  });
  expect(await contentOf(join(out, 'checkpoints'))).toEqual(before);
});
