import { mkdtemp, readdir, readFile, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import type { StageConfig } from '../../src/config/stages.js';
import { UserError } from '../../src/errors.js';
import { Interrupted, type StageContext, type StageEvent } from '../../src/runs/events.js';
import { readManifest } from '../../src/runs/manifest.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { grpo } from '../../src/stages/grpo.js';
import { pretrain } from '../../src/stages/pretrain.js';
import { rm } from '../../src/stages/rm.js';
import { sft } from '../../src/stages/sft.js';
import { causalLossFeeds } from '../../src/training/language.js';
import { replayStep } from '../../src/training/replay.js';
import { goldenLearner } from '../support/golden-learner.js';
import { whole } from '../support/packed.js';
import { miniRows, writeMiniData, writeMiniEncoder, writeMiniPolicy } from '../support/mini-humor.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-stability-'));
const folder = (name: string): string => join(root, name);
afterAll(() => remove(root, { recursive: true }));
const silent: StageContext = { onEvent: () => undefined };

describe('a step without a finite loss', () => {
  it('leaves weights, moments and the count of updates as they are, bit for bit', async () => {
    const runtime = new Runtime({ threads: 1 });
    const settings = { weightDecay: 0.1, maxGradNorm: 1 };
    const [learner, spared] = [
      await goldenLearner(runtime, 'lora/adapter', settings),
      await goldenLearner(runtime, 'lora/adapter', settings),
    ];
    const [first, second] = [[whole([5, 6, 7, 8])], [whole([9, 8, 7])]];
    // A mean over no tokens at all is not finite; in the second micro-batch its gradients are added to finite ones.
    const [good, bad] = [causalLossFeeds(first, 3), causalLossFeeds(second, 0)];
    await learner.step([good], 0.01);
    await spared.step([good], 0.01);
    const before = await learner.optimizer.readState();
    for (const batches of [[bad], [good, bad]]) {
      const { gradNorm } = await learner.step(batches, 0.01);
      expect(gradNorm).not.toSatisfy(Number.isFinite);
      expect(await learner.optimizer.readState()).toEqual(before);
      expect(learner.optimizer.step).toBe(1);
    }
    await learner.step([good], 0.01);
    await spared.step([good], 0.01);
    expect(await learner.optimizer.readState()).toEqual(await spared.optimizer.readState());
    await runtime.close();
  });
});

const rows = miniRows(40);
beforeAll(async () => {
  await writeMiniData(folder('data'), rows);
  await writeMiniPolicy(folder('policy'), rows);
  await writeMiniEncoder(folder('encoder'), rows, 'masked');
  await writeMiniEncoder(folder('judge'), rows, 'classifier');
});

type Trainer = 'pretrain' | 'sft' | 'rm' | 'grpo';
const own: Record<Trainer, Record<string, unknown>> = {
  pretrain: { model: folder('policy') },
  sft: { model: folder('policy'), 'lora.r': 4, 'sft.sampleSteps': 100, 'sft.samples': 0 },
  rm: { model: folder('encoder'), 'rm.baselines': false },
  grpo: {
    model: folder('policy'),
    rm: folder('judge'),
    'lora.r': 4,
    'grpo.numGenerations': 2,
    'grpo.completionsPerRollout': 8,
    'grpo.numIterations': 4,
    'grpo.maxCompletionLength': 6,
    'grpo.evalPrompts': 0,
  },
};
const configOf = <Name extends Trainer>(name: Name, flags: Record<string, unknown>): Promise<StageConfig<Name>> =>
  loadConfig({
    stage: name,
    flags: {
      'data.dir': folder('data'),
      'data.validationFraction': 0.2,
      'data.templates.headline': '标题：{headline}\n',
      'data.templates.words': '词语：{word1}、{word2}\n',
      [`${name}.batchSize`]: 4,
      [`${name}.warmupSteps`]: 0,
      [`${name}.warmupRatio`]: 0,
      [`${name}.loggingSteps`]: 1,
      [`${name}.evalSteps`]: 100,
      threads: 1,
      ...own[name],
      ...flags,
    },
  });

describe('a run that diverges', () => {
  async function expectReplayable<Name extends Trainer>(
    name: Name,
    stage: (config: StageConfig<Name>, context: StageContext) => Promise<string>,
    more: Record<string, unknown> = {},
  ): Promise<void> {
    const out = folder(`diverged-${name}${Object.keys(more).join('-')}`);
    // The first update throws the weights so far that nothing computed with them is finite.
    const config = await configOf(name, {
      out,
      [`${name}.maxSteps`]: 8,
      [`${name}.learningRate`]: 1e38,
      [`${name}.weightDecay`]: 0,
      [`${name}.stability.maxSkippedSteps`]: 2,
      ...more,
    });
    const events: StageEvent[] = [];
    const thrown = await stage(config, { onEvent: (event) => events.push(event) }).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(UserError);
    expect(thrown).toMatchObject({ code: 'training.diverged', where: join(out, 'checkpoints', 'step-2') });

    const warnings = events.flatMap((event) => (event.type === 'warning' ? [event] : []));
    const skipped = warnings.filter(({ code }) => code === 'training.skipped');
    expect(skipped.map(({ message }) => /^Step (\d+) is skipped/.exec(message)?.[1])).toEqual(['2', '3']);
    const lines = (await readFile(join(out, 'skipped.jsonl'), 'utf8')).trim().split('\n');
    const recorded = lines.map((line) => JSON.parse(line) as { step: number; rows: string[] });
    expect(recorded.map(({ step }) => step)).toEqual([2, 3]);
    for (const { rows: places } of recorded) {
      expect(places.length).toBeGreaterThan(0);
      for (const place of places) expect(place).toMatch(/_train\.csv:\d+$/);
    }
    expect(readMetrics(join(out, 'metrics.jsonl')).at(-1)?.values['skipped_steps']).toBe(1);

    const before = await readdir(out, { recursive: true });
    const replay = await replayStep(stage, config, silent);
    expect(replay).toMatchObject({ step: 3, rows: recorded[1]!.rows });
    expect(replay.problem).toMatch(/is (NaN|-?Infinity)/);
    expect(replay.origin).toMatch(/^(node \d+ \w+ \(.*\), after the weight .+|the weight .+)$/);
    expect(await readdir(out, { recursive: true })).toEqual(before);
  }

  it('stops before the step that fails, says which rows, and repeats it: pretrain', () =>
    expectReplayable('pretrain', pretrain));
  it('stops before the step that fails, says which rows, and repeats it: sft', () => expectReplayable('sft', sft));
  it('stops before the step that fails, says which rows, and repeats it: rm', () => expectReplayable('rm', rm));
  it('stops before the step that fails, says which rows, and repeats it: rm with an adapter', () =>
    expectReplayable('rm', rm, { 'rm.lora.r': 4 }));
  it('stops before the step that fails, says which rows, and repeats it: grpo', () => expectReplayable('grpo', grpo));
});

describe('a loss that jumps', () => {
  const STEPS = 17;
  /** All rows the same, so that the loss falls without noise, but one that is nothing like them. */
  beforeAll(async () => {
    const lines = Array.from({ length: 13 }, () => '猫排队,雨伞,键盘,雨伞遇见键盘');
    lines.push('鱼,鱼,鱼,zqxjkvbpgw#@!');
    await writeFile(folder('odd.csv'), ['headline,word1,word2,joke', ...lines].join('\n'));
  });

  const run = async (name: string, resume: boolean, context: StageContext): Promise<string> => {
    const config = await loadConfig({
      stage: 'sft',
      flags: {
        model: folder('policy'),
        'data.file': folder('odd.csv'),
        'data.validationFraction': 0,
        'data.templates.headline': '标题：{headline}\n',
        'lora.r': 4,
        'lora.dropout': 0.1,
        'sft.samples': 0,
        'sft.batchSize': 1,
        'sft.maxSteps': STEPS,
        'sft.loggingSteps': 1,
        'sft.saveSteps': 2,
        'sft.learningRate': 0.02,
        seed: 1,
        'sft.stability.rollback': true,
        'sft.stability.spikeWindow': 8,
        'sft.stability.spikeThreshold': 2,
        threads: 1,
        out: folder(name),
        resume,
      },
    });
    return sft(config, context);
  };

  const until = (step: number, how: 'stop' | 'crash'): StageContext => {
    const controller = new AbortController();
    return {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type !== 'progress' || event.done !== step) return;
        if (how === 'crash') throw new Error('the lights went out');
        controller.abort();
      },
    };
  };

  it('is undone with the batches since the last checkpoint, and a resumed run undoes the same', async () => {
    await run('whole', false, silent);
    const metrics = readMetrics(join(folder('whole'), 'metrics.jsonl'));
    const { interventions } = (await readManifest(folder('whole')))!;
    expect(interventions.length, JSON.stringify(metrics.map(({ values }) => values['loss']))).toBeGreaterThan(0);
    const leftOut = new Set<number>();
    for (const { step, code, message } of interventions) {
      const anchor = step! - (step! % 2 === 0 ? 2 : 1);
      expect(code).toBe('training.rollback');
      expect(message).toContain(`The weights of step ${anchor} are back, and the batches of steps ${anchor + 1} to`);
      for (let each = anchor + 1; each <= step!; each++) leftOut.add(each);
    }
    const times = interventions.length;
    expect(metrics.at(-1)?.values).toMatchObject({ rollbacks: times, loss_spikes: times, skipped_steps: leftOut.size });
    const at = interventions[0]!.step!;

    // Stopped between the checkpoint and the spike, then lost just after it.
    await expect(run('broken', false, until(at - 1, 'stop'))).rejects.toThrow(Interrupted);
    await expect(run('broken', true, until(at + 1, 'crash'))).rejects.toThrow('the lights went out');
    await run('broken', true, silent);
    const file = (name: string): Promise<Buffer> => readFile(join(folder(name), 'adapter/adapter_model.safetensors'));
    expect((await file('broken')).equals(await file('whole'))).toBe(true);
    expect(readMetrics(join(folder('broken'), 'metrics.jsonl'))).toEqual(metrics);
    const again = (await readManifest(folder('broken')))!.interventions;
    expect(again.map(({ step, message }) => [step, message])).toEqual(
      interventions.map(({ step, message }) => [step, message]),
    );
  });
});
