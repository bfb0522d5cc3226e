import { join } from 'node:path';
import { z } from 'zod';
import { readFloats, readHeader } from '../checkpoints/safetensors.js';
import { sourceOfFloats, writeSafetensors } from '../checkpoints/safetensors-writer.js';
import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import type { Optimizer } from '../optim/optimizer.js';
import { learningRate, type Schedule } from '../optim/schedules.js';
import { loadCheckpoint } from '../runs/checkpoints.js';
import { Interrupted } from '../runs/events.js';
import type { RunFolder } from '../runs/run-folder.js';

export type Metrics = Record<string, number>;

export interface LoopPlan {
  readonly run: RunFolder;
  readonly stage: string;
  readonly signal: AbortSignal | undefined;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly schedule: Schedule;
  readonly loggingSteps: number;
  readonly evalSteps: number;
  /** Also looks at held-out data where an epoch ends. */
  readonly evaluateEveryEpoch?: boolean;
  readonly saveSteps: number;
  readonly optimizer: Optimizer;
  /** Step number `step` (from 0) at a learning rate; its metrics are averaged over the steps between two log lines. */
  step(step: number, rate: number): Promise<Metrics>;
  /** Counts since the start of the run, for the log line. */
  totals?(): Metrics;
  /** Looks at held-out data after `step` steps; also before the first. */
  evaluate?(step: number): Promise<Metrics>;
  /** Which of the evaluation's metrics decides, and in which direction it is better. */
  readonly best?: { readonly metric: string; readonly direction: 'lower' | 'higher' };
  /** Anything else to do after `step` steps: sample texts. */
  after?(step: number): Promise<void>;
  /** What the steps carry from one to the next beyond the optimizer, as JSON. */
  readonly carried?: { save(): unknown; load(state: unknown): void };
}

const optimizerFile = 'optimizer.safetensors';
const CHECKPOINTS_KEPT = 2;

const stateSchema = z.strictObject({
  /** Sum and number of each metric since the last log line. */
  window: z.record(z.string(), z.tuple([z.number(), z.int()])),
  best: z.strictObject({ step: z.int(), value: z.number() }).nullable(),
  carried: z.unknown(),
});
type LoopState = z.infer<typeof stateSchema>;

/**
 * Runs a stage's optimizer steps: schedule, logs, evaluation, checkpoints, resumption and interruption. A step is a
 * function of its number and of the state saved here, so a resumed run goes on exactly as it would have.
 */
export async function trainLoop(plan: LoopPlan): Promise<void> {
  const { run, totalSteps } = plan;
  let state: LoopState = { window: {}, best: null, carried: null };
  let done = 0;
  if (run.resumeFrom === undefined) {
    state = await evaluateAt(plan, 0, state);
    await plan.after?.(0);
  } else {
    ({ done, state } = await resume(plan, run.resumeFrom.path));
  }

  while (done < totalSteps) {
    const rate = learningRate(plan.schedule, done);
    const metrics = await plan.step(done, rate);
    done++;
    requireFinite(metrics, done, run.path);
    collect(state, metrics);
    progress(plan, done, metrics);
    if (done % plan.loggingSteps === 0 || done === totalSteps) log(plan, done, rate, state);
    const before = state.best;
    if (isEvaluated(plan, done)) state = await evaluateAt(plan, done, state);
    await plan.after?.(done);
    const interrupted = plan.signal?.aborted === true && done < totalSteps;
    const improved = state.best !== before;
    if (improved || interrupted || done % plan.saveSteps === 0 || done === totalSteps) await save(plan, done, state);
    if (interrupted) {
      run.close();
      throw new Interrupted(run.path, done);
    }
  }
  if (state.best !== null) await restoreBest(plan, state.best.step);
}

/** A loss that is no number makes every later weight no number: nothing good can follow. */
function requireFinite(metrics: Metrics, step: number, where: string): void {
  const bad = ['loss', 'grad_norm'].find((name) => name in metrics && !Number.isFinite(metrics[name]));
  if (bad === undefined) return;
  throw new UserError({
    code: 'training.diverged',
    message: `The ${bad} of step ${step} is ${metrics[bad]!}.`,
    where,
    fix: 'Lower the learning rate or look at the data of that step; --resume goes on from the last checkpoint.',
  });
}

const isEvaluated = ({ evalSteps, stepsPerEpoch, totalSteps, evaluateEveryEpoch }: LoopPlan, step: number): boolean =>
  step % evalSteps === 0 || step === totalSteps || (evaluateEveryEpoch === true && step % stepsPerEpoch === 0);

function collect({ window }: LoopState, metrics: Metrics): void {
  for (const [name, value] of Object.entries(metrics)) {
    if (!Number.isFinite(value)) continue;
    const [total, count] = window[name] ?? [0, 0];
    window[name] = [total + value, count + 1];
  }
}

function progress(plan: LoopPlan, done: number, metrics: Metrics): void {
  const shown = ['loss', 'reward'].flatMap((name) => (name in metrics ? [`${name} ${metrics[name]!.toFixed(4)}`] : []));
  plan.run.emit({ type: 'progress', task: plan.stage, done, total: plan.totalSteps, note: shown.join(' · ') });
}

/** One log line: the mean of each metric over the steps since the last one that had it. */
function log(plan: LoopPlan, step: number, rate: number, state: LoopState): void {
  const means = Object.fromEntries(Object.entries(state.window).map(([name, [total, count]]) => [name, total / count]));
  const values = { ...means, learning_rate: rate, ...plan.totals?.() };
  plan.run.emit({ type: 'metrics', step, epoch: step / plan.stepsPerEpoch, values });
  state.window = {};
}

async function evaluateAt(plan: LoopPlan, step: number, state: LoopState): Promise<LoopState> {
  const values = await plan.evaluate?.(step);
  if (values === undefined || Object.keys(values).length === 0) return state;
  plan.run.emit({ type: 'metrics', step, epoch: step / plan.stepsPerEpoch, values });
  const value = plan.best === undefined ? undefined : values[plan.best.metric];
  if (value === undefined || Number.isNaN(value) || step === 0) return state;
  const better =
    state.best === null || (plan.best?.direction === 'lower' ? value < state.best.value : value > state.best.value);
  return better ? { ...state, best: { step, value } } : state;
}

async function save(plan: LoopPlan, step: number, state: LoopState): Promise<void> {
  const tensors = await plan.optimizer.readState();
  await plan.run.saveCheckpoint(
    {
      step,
      state: { ...state, carried: plan.carried?.save() ?? null },
      schema: stateSchema,
      write: async (folder) => {
        const sources = Array.from(tensors, ([name, tensor]) => sourceOfFloats(name, tensor));
        await writeSafetensors(join(folder, optimizerFile), sources);
      },
    },
    {
      keep: CHECKPOINTS_KEPT,
      best: state.best === null ? undefined : { metric: plan.best!.metric, ...state.best },
    },
  );
}

async function resume(plan: LoopPlan, path: string): Promise<{ done: number; state: LoopState }> {
  const state = await restore(plan, path);
  plan.carried?.load(state.carried);
  return { done: plan.optimizer.step, state };
}

/** Goes back to the weights that were best on held-out data. */
async function restoreBest(plan: LoopPlan, step: number): Promise<void> {
  if (step !== plan.optimizer.step) await restore(plan, plan.run.checkpointPath(step));
}

async function restore({ stage, optimizer }: LoopPlan, path: string): Promise<LoopState> {
  const checkpoint = await loadCheckpoint(path, { stage, schema: stateSchema });
  await optimizer.restore(checkpoint.step, await readAll(checkpoint.file(optimizerFile)), path);
  return checkpoint.state;
}

async function readAll(file: string): Promise<Map<string, Tensor<'float32'>>> {
  const { tensors } = await readHeader(file);
  const all = new Map<string, Tensor<'float32'>>();
  for (const info of tensors.values()) all.set(info.name, await readFloats(info));
  return all;
}
