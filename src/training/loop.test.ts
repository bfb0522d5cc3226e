import { cpSync, rmSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { tensor } from '../graph/tensor.js';
import { machineError, UserError } from '../errors.js';
import { mul, reduceSum } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { Interrupted, type StageEvent } from '../runs/events.js';
import { LOCK_FILE } from '../runs/lock.js';
import { readMetrics } from '../runs/metrics.js';
import { openRunFolder } from '../runs/run-folder.js';
import { readScalars } from '../runs/tensorboard/reader.js';
import { Runtime } from '../runtime/runtime.js';
import { Learner } from './learner.js';
import { trainLoop, type LoopPlan } from './loop.js';
import { Replayed } from './replay.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-loop-'));
const runtime = new Runtime({ threads: 1 });
afterAll(async () => {
  await runtime.close();
  await rm(root, { recursive: true });
});

/** A learner that draws two numbers towards zero. */
async function newLearner(): Promise<Learner> {
  const graph = newGraph();
  const w = graph.parameter('w', 'float32', [2]);
  const loss = reduceSum(mul(w, w));
  graph.output('loss', loss);
  return Learner.create(runtime, {
    graph,
    loss,
    trainable: new Map([['w', w]]),
    initial: new Map([['w', tensor('float32', [2], [1, -2])]]),
    adamw: { weightDecay: 0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, maxGradNorm: 1 },
  });
}

const out = (name: string): string => join(root, name);

/** Runs four steps in a folder, an evaluation after each. */
async function train(
  name: string,
  own: Partial<LoopPlan> = {},
  resume = false,
  onEvent: (event: StageEvent) => void = () => undefined,
): Promise<{ best: number; events: StageEvent[] }> {
  const events: StageEvent[] = [];
  const request = { out: out(name), stage: 'sft', config: {}, seed: 1, device: 'cpu', resume, fingerprints: {} };
  const run = await openRunFolder({
    ...request,
    onEvent: (event) => {
      events.push(event);
      onEvent(event);
    },
  });
  const learner = await newLearner();
  try {
    const best = await trainLoop({
      run,
      learner,
      stage: 'sft',
      signal: undefined,
      totalSteps: 4,
      stepsPerEpoch: 4,
      schedule: { name: 'constant', baseRate: 0.1 },
      loggingSteps: 1,
      evalSteps: 1,
      saveSteps: 100,
      stability: { maxSkippedSteps: 2, spikeThreshold: 1e9, spikeWindow: 20, rollback: false },
      step: async (_, rate) => {
        const { reports, gradNorm } = await learner.step([{}], rate);
        return { loss: Number(reports[0]!['loss']!.data[0]), grad_norm: gradNorm };
      },
      rows: () => [],
      ...own,
    });
    return { best, events };
  } finally {
    run.close();
    await learner.dispose();
  }
}

const rowsOf = (name: string): unknown[] => readMetrics(join(out(name), 'metrics.jsonl'));

describe('of steps that are equally good', () => {
  const seen = [
    { eval_roc_auc: 0.5, eval_loss: 0.1 },
    { eval_roc_auc: 0.9, eval_loss: 0.7 },
    { eval_roc_auc: 1, eval_loss: 0.6 },
    { eval_roc_auc: 1, eval_loss: 0.3 },
    { eval_roc_auc: 1, eval_loss: 0.4 },
  ];
  const evaluate = (step: number) => Promise.resolve(seen[step]!);
  const best = { metric: 'eval_roc_auc', direction: 'higher' as const };

  it('the first is kept', async () => {
    expect((await train('first', { evaluate, best })).best).toBe(2);
  });

  it('or the one that a second metric prefers', async () => {
    expect((await train('second', { evaluate, best: { ...best, tie: 'eval_loss' } })).best).toBe(3);
  });
});

const curvesOf = (name: string): [string, number[][]][] =>
  Array.from(readScalars(join(out(name), 'tensorboard')), ([tag, points]) => [
    tag,
    points.map((p) => [p.step, p.value]),
  ]);

describe('a run that stopped before a look at held-out data', () => {
  const evaluate = (step: number): Promise<{ eval_loss: number }> => Promise.resolve({ eval_loss: 1 / (1 + step) });
  const after = (): Promise<void> => Promise.resolve();

  it.each([0, 2])(
    'has its figures once, though it was killed when it had just made up for it (%s steps)',
    async (at) => {
      const name = (which: string): string => `${which}-${at}`;
      await train(name('alone'), { evaluate, after });
      const controller = new AbortController();
      const giveUp = (step: number): Promise<{ eval_loss: number }> => {
        if (step !== at) return evaluate(step);
        controller.abort();
        return Promise.reject(controller.signal.reason as Error);
      };
      const stopped = train(name('stopped'), { evaluate: giveUp, after, signal: controller.signal });
      await expect(stopped).rejects.toThrow(Interrupted);
      // What a kill right after the figures were written leaves is what is there at that moment.
      await train(name('stopped'), { evaluate, after }, true, (event) => {
        if (event.type !== 'metrics' || event.step !== at) return;
        cpSync(out(name('stopped')), out(name('killed')), { recursive: true });
        rmSync(join(out(name('killed')), LOCK_FILE));
      });
      expect(rowsOf(name('killed')).at(-1)).toMatchObject({ step: at, values: { eval_loss: 1 / (1 + at) } });
      const kept = rowsOf(name('killed'));
      await expect(train(name('killed'), { evaluate, after, replay: true }, true)).rejects.toBeInstanceOf(Replayed);
      expect(rowsOf(name('killed'))).toEqual(kept);
      await train(name('killed'), { evaluate, after }, true);
      for (const which of ['stopped', 'killed']) {
        expect(rowsOf(name(which)), which).toEqual(rowsOf(name('alone')));
        expect(curvesOf(name(which)), which).toEqual(curvesOf(name('alone')));
      }
    },
  );
});

describe('what fails in the midst', () => {
  const fault = new UserError({ code: 'reward.threw', message: 'The reward threw', fix: 'Mend it.' });
  /** Throws at a step, the first time. */
  const once = (at: number, error: Error) => {
    let calls = 0;
    return (step: number): Promise<void> => (step === at && calls++ === 0 ? Promise.reject(error) : Promise.resolve());
  };
  const evaluated = (step: number): Promise<{ eval_loss: number }> => Promise.resolve({ eval_loss: 1 / (1 + step) });

  it.each([
    [
      'a look at held-out data',
      (fails: (step: number) => Promise<void>): Partial<LoopPlan> => ({
        evaluate: async (step) => {
          await fails(step);
          return evaluated(step);
        },
      }),
    ],
    [
      'what comes after it',
      (after: (step: number) => Promise<void>): Partial<LoopPlan> => ({ evaluate: evaluated, after }),
    ],
  ])('is saved before: %s', async (what, own) => {
    const fails = own(once(2, fault));
    await expect(train(what, fails)).rejects.toBe(fault);
    expect(await readdir(join(out(what), 'checkpoints'))).toEqual(['step-2']);
    const { events } = await train(what, fails, true);
    expect(events.flatMap((event) => (event.type === 'progress' ? [event.done] : []))).toEqual([3, 4]);
    await train(`${what}, undisturbed`, { evaluate: evaluated });
    expect(rowsOf(what)).toEqual(rowsOf(`${what}, undisturbed`));
  });

  it('is not saved where a step has begun to change the weights, or the disk is full', async () => {
    const broken = await newLearner();
    const half: Partial<LoopPlan> = {
      learner: broken,
      step: async (step, rate) => {
        const { reports, gradNorm } = await broken.step([{}], rate);
        if (step === 2) throw fault;
        return { loss: Number(reports[0]!['loss']!.data[0]), grad_norm: gradNorm };
      },
    };
    await expect(train('half', half)).rejects.toBe(fault);
    expect(await readdir(out('half'))).not.toContain('checkpoints');

    const full = machineError({ code: 'file.disk', message: 'The disk is full.', fix: 'Free space.' });
    await expect(train('full', { evaluate: evaluated, after: once(2, full) })).rejects.toBe(full);
    expect(await readdir(out('full'))).not.toContain('checkpoints');
  });
});
