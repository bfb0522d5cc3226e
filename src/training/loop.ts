import { join } from 'node:path';
import { z } from 'zod';
import { readFloats, readHeader } from '../checkpoints/safetensors.js';
import { sourceOfFloats, writeSafetensors } from '../checkpoints/safetensors-writer.js';
import { UserError } from '../errors.js';
import type { SavedTensor } from '../optim/optimizer.js';
import { learningRate, type Schedule } from '../optim/schedules.js';
import { loadCheckpoint, type Checkpoint } from '../runs/checkpoints.js';
import { Interrupted } from '../runs/events.js';
import type { RunFolder } from '../runs/run-folder.js';
import type { Learner } from './learner.js';
import { Replayed } from './replay.js';
import { isSpike, median, stabilityMetrics, stabilityState, type StabilitySettings } from './stability.js';

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
  readonly stability: StabilitySettings;
  readonly learner: Learner;
  /** The step after the checkpoint is repeated to see what goes wrong in it, and the loop ends with `Replayed`. */
  readonly replay?: boolean | undefined;
  /**
   * Step number `step` (from 0) at a learning rate; its metrics are averaged over the steps between two log lines. Until
   * it begins to learn it may give up by throwing the signal's reason.
   */
  step(step: number, rate: number): Promise<Metrics>;
  /** Places of the rows that a step learns from, as `file:line`; asked after the step. */
  rows(step: number): readonly string[];
  /** Counts since the start of the run, for the log line. */
  totals?(): Metrics;
  /** Looks at held-out data after `step` steps; also before the first. It may give up by throwing the signal's reason. */
  evaluate?(step: number): Promise<Metrics>;
  /**
   * Which of the evaluation's metrics decides, and in which direction it is better. Of equals the first stays, or the one
   * with the lower `tie`.
   */
  readonly best?: { readonly metric: string; readonly direction: 'lower' | 'higher'; readonly tie?: string };
  /** Whether what was seen of held-out data ends the run before its last step; a function of what is carried. */
  isEnough?(): boolean;
  /** Anything else to do after `step` steps: sample texts. It may give up too. */
  after?(step: number): Promise<void>;
  /** What the steps carry from one to the next beyond the optimizer, as JSON. */
  readonly carried?: { save(): unknown; load(state: unknown): void };
}

/** Steps that were skipped: loss, norm of the gradients, rows. */
const SKIPPED_FILE = 'skipped.jsonl';
const optimizerFile = 'optimizer.safetensors';
const CHECKPOINTS_KEPT = 2;
/** Rows named in a warning. */
const ROWS_SHOWN = 8;

const stateSchema = z.strictObject({
  /** Sum and number of each metric since the last log line. */
  window: z.record(z.string(), z.tuple([z.number(), z.int()])),
  best: z.strictObject({ step: z.int(), value: z.number(), tie: z.number().nullable().default(null) }).nullable(),
  carried: z.unknown(),
  stability: stabilityState.prefault({}),
  /** What is still due after the step: the look at held-out data, then what `after` does. */
  todo: z.enum(['evaluate', 'after', 'nothing']).default('nothing'),
  /** Where something is due: the sizes of the files of rows and events before it was begun. */
  recorded: z.record(z.string(), z.int()).nullable().default(null),
});
type LoopState = z.output<typeof stateSchema>;

/**
 * Runs a stage's optimizer steps: schedule, logs, evaluation, checkpoints, resumption and interruption. A step is a
 * function of its number and of the state saved here, so a resumed run goes on exactly as it would have. That holds for
 * steps that go wrong too: their number is used up, so the schedule and the order of the rows go on, and the weights,
 * moments and the count of updates stay (skipped) or become those of a checkpoint (rolled back).
 *
 * Once the signal is aborted, a step that has begun to learn is finished; what comes before it (a rollout) or after it
 * (an evaluation, sample texts) is given up where it notices the signal, and done again by the run that resumes. Where
 * any of them fails, by a reward of the user's or a row that cannot be read, what was reached is saved before the error
 * goes on.
 *
 * @returns the step whose weights are left: the best by held-out data, or the last
 */
export async function trainLoop(plan: LoopPlan): Promise<number> {
  const { run, totalSteps } = plan;
  const { optimizer } = plan.learner;
  let state: LoopState = {
    window: {},
    best: null,
    carried: null,
    stability: stabilityState.parse({}),
    todo: 'evaluate',
    recorded: null,
  };
  let done = 0;
  if (run.resumeFrom !== undefined) ({ done, state } = await resume(plan, run.resumeFrom.path));

  while (plan.replay === true || (await settle(plan, done, state))) {
    if (done === totalSteps || plan.isEnough?.() === true) return restoreBest(plan, done, state.best?.step ?? done);
    const rate = learningRate(plan.schedule, done);
    const before = structuredClone({ ...state, carried: plan.carried?.save() ?? null });
    const updates = optimizer.step;
    const metrics = await savingOnFailure(
      plan,
      done,
      () => unlessStopped(plan, () => plan.step(done, rate)),
      // A step that had begun to change the weights cannot be begun again.
      () => (optimizer.step === updates ? before : undefined),
    );
    if (metrics === undefined) {
      await save(plan, done, before);
      break;
    }
    done++;
    const updated = optimizer.step > updates;
    if (plan.replay === true) throw await replayed(plan, done, metrics, updated);
    if (updated) {
      state.stability.skippedInARow = 0;
      await watchForSpikes(plan, done, metrics, state);
    } else {
      skip(plan, done, metrics, state);
      if (state.stability.skippedInARow >= plan.stability.maxSkippedSteps) {
        await save(plan, done - 1, before);
        throw diverged(plan, done, metrics);
      }
    }
    collect(state, metrics);
    progress(plan, done, metrics);
    if (done % plan.loggingSteps === 0 || done === totalSteps) log(plan, done, rate, state);
    state.todo = isEvaluated(plan, done) ? 'evaluate' : 'after';
  }
  run.close();
  throw new Interrupted(run.path, done);
}

/**
 * Does what is due after `done` steps and saves where it is time to. Stopped, it saves with what is left to do.
 *
 * @returns whether to go on
 */
async function settle(plan: LoopPlan, done: number, state: LoopState): Promise<boolean> {
  const pending = state.todo !== 'nothing';
  const reached = (): LoopState => ({ ...state, carried: plan.carried?.save() ?? null });
  const work = async (): Promise<true> => {
    if (state.todo === 'evaluate') {
      await evaluateAt(plan, done, state);
      state.todo = 'after';
    }
    if (state.todo === 'after') {
      await plan.after?.(done);
      state.todo = 'nothing';
    }
    return true;
  };
  const whole = await savingOnFailure(plan, done, () => unlessStopped(plan, work), reached);
  const due = done > 0 && (state.best?.step === done || done % plan.saveSteps === 0 || done === plan.totalSteps);
  const stopped = whole === undefined || (isStopped(plan) && done < plan.totalSteps);
  // Not what an interruption saves: the run would then roll back elsewhere than one that was left alone.
  if (pending && due && whole === true) Object.assign(state.stability, { anchor: done, rollbacksInARow: 0 });
  // What was loaded with nothing left to do stands already; with something left, that is done now, and not once more.
  const loaded = plan.run.resumeFrom?.step === done;
  if (pending && (due || stopped || loaded)) await save(plan, done, reached());
  return !stopped;
}

/**
 * What `work` gives. Where it fails, `reached` is saved as of step `done`, so that nothing is lost that was computed, and
 * the error goes on.
 *
 * @param reached what to save; undefined where it is no longer whole
 */
async function savingOnFailure<T>(
  plan: LoopPlan,
  done: number,
  work: () => Promise<T>,
  reached: () => LoopState | undefined,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const state = done === 0 || plan.replay === true ? undefined : reached();
    // A disk that is full or broken takes no checkpoint either; whatever else keeps one from being saved, the error that
    // ends the run is the one to tell.
    if (state !== undefined && !isFileFault(error)) {
      await save(plan, done, state).then(
        () => {
          const message = `Step ${done} is saved: the same command with --resume goes on from there.`;
          plan.run.emit({ type: 'warning', code: 'training.saved', message });
        },
        () => undefined,
      );
    }
    throw error;
  }
}

const isFileFault = (error: unknown): boolean => error instanceof UserError && error.code.startsWith('file.');

/** What `work` gives; undefined where the signal was aborted before or made it give up. */
async function unlessStopped<T>(plan: LoopPlan, work: () => Promise<T>): Promise<T | undefined> {
  if (isStopped(plan)) return undefined;
  try {
    return await work();
  } catch (error) {
    if (isStopped(plan) && error === plan.signal?.reason) return undefined;
    throw error;
  }
}

const isStopped = ({ signal }: LoopPlan): boolean => signal?.aborted === true;

/** What of a step is not finite, in words; undefined where nothing is. */
const unfit = (metrics: Metrics): string | undefined => {
  const bad = ['loss', 'grad_norm'].filter((name) => name in metrics && !Number.isFinite(metrics[name]));
  return bad.length === 0 ? undefined : bad.map((name) => `${name} is ${metrics[name]!}`).join(' and ');
};

function skip(plan: LoopPlan, step: number, metrics: Metrics, { stability }: LoopState): void {
  stability.skipped++;
  stability.skippedInARow++;
  const rows = plan.rows(step - 1);
  const { loss = NaN, grad_norm = NaN } = metrics;
  plan.run.lines(SKIPPED_FILE).append({ step, loss: String(loss), grad_norm: String(grad_norm), rows });
  const shown = rows.slice(0, ROWS_SHOWN).join(', ');
  const more = rows.length > ROWS_SHOWN ? ` and ${rows.length - ROWS_SHOWN} more` : '';
  plan.run.emit({
    type: 'warning',
    code: 'training.skipped',
    message: `Step ${step} is skipped: ${unfit(metrics) ?? 'a number in it is not finite'}. Its rows: ${shown}${more}.`,
  });
}

function diverged({ run, stability }: LoopPlan, step: number, metrics: Metrics): UserError {
  return new UserError({
    code: 'training.diverged',
    message: `${stability.maxSkippedSteps === 1 ? 'A step' : `${stability.maxSkippedSteps} steps in a row`} had no finite loss and gradient: in step ${step} ${unfit(metrics) ?? 'a number is not finite'}.`,
    where: run.checkpointPath(step - 1),
    fix: `The checkpoint there stands just before that step: the same command with --replay repeats it and tells where the number arises. Look at its rows (${SKIPPED_FILE}), lower the learning rate, or go on beyond it with --resume and a higher stability.maxSkippedSteps.`,
  });
}

async function replayed(plan: LoopPlan, step: number, metrics: Metrics, updated: boolean): Promise<Replayed> {
  const problem = updated ? undefined : (unfit(metrics) ?? 'a number in it is not finite');
  const origin = updated ? undefined : await plan.learner.diagnose();
  return new Replayed({ step, problem, origin, rows: plan.rows(step - 1), metrics });
}

/** Remembers the loss; one that jumps is reported and, where asked for, undone together with the steps before it. */
async function watchForSpikes(plan: LoopPlan, step: number, { loss }: Metrics, state: LoopState): Promise<void> {
  const { stability } = state;
  if (loss === undefined) return;
  const spike = isSpike(loss, stability.recent, plan.stability);
  const undone = spike && plan.stability.rollback && stability.anchor !== null;
  if (!undone) stability.recent = [...stability.recent, loss].slice(-plan.stability.spikeWindow);
  if (!spike) return;
  stability.spikes++;
  const what = `The loss of step ${step} jumped to ${loss.toPrecision(4)} from about ${median(stability.recent).toPrecision(4)}.`;
  if (!undone) {
    const why = plan.stability.rollback ? ' There is no checkpoint yet to go back to.' : '';
    await plan.run.intervene({ step, code: 'training.spike', message: what + why });
    return;
  }
  const anchor = stability.anchor!;
  const { rollbacksInARow, rollbacks } = stability;
  if (rollbacksInARow >= plan.stability.maxSkippedSteps) throw spiking(plan, anchor, rollbacksInARow);
  await restore(plan, plan.run.checkpointPath(anchor));
  Object.assign(stability, { skipped: step - plan.learner.optimizer.step, rollbacks: rollbacks + 1 });
  stability.rollbacksInARow++;
  const message = `${what} The weights of step ${anchor} are back, and the batches of steps ${anchor + 1} to ${step} left out.`;
  await plan.run.intervene({ step, code: 'training.rollback', message });
}

const spiking = ({ run }: LoopPlan, anchor: number, times: number): UserError =>
  new UserError({
    code: 'training.spikes',
    message: `The loss keeps jumping: ${times} times the weights of step ${anchor} were taken back.`,
    where: run.checkpointPath(anchor),
    fix: 'Lower the learning rate or maxGradNorm, or raise stability.spikeThreshold if such losses are right.',
  });

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
  const values = { ...means, learning_rate: rate, ...plan.totals?.(), ...stabilityMetrics(state.stability) };
  plan.run.emit({ type: 'metrics', step, epoch: step / plan.stepsPerEpoch, values });
  state.window = {};
}

async function evaluateAt(plan: LoopPlan, step: number, state: LoopState): Promise<void> {
  const values = await plan.evaluate?.(step);
  if (values === undefined || Object.keys(values).length === 0) return;
  plan.run.emit({ type: 'metrics', step, epoch: step / plan.stepsPerEpoch, values });
  const value = plan.best === undefined ? undefined : values[plan.best.metric];
  if (value === undefined || Number.isNaN(value) || step === 0) return;
  const { direction, tie: second = '' } = plan.best!;
  const tie = values[second] ?? null;
  const { best } = state;
  const better = best === null || (direction === 'lower' ? value < best.value : value > best.value);
  const equal = best?.value === value && tie !== null && best.tie !== null && tie < best.tie;
  if (better || equal) state.best = { step, value, tie };
}

async function save(plan: LoopPlan, step: number, state: LoopState): Promise<void> {
  await plan.run.saveCheckpoint(
    {
      step,
      state: { ...state, recorded: state.todo === 'nothing' ? null : plan.run.recorded() },
      schema: stateSchema,
      anchor: state.stability.anchor,
      write: async (folder) => {
        const sources = Array.from(plan.learner.optimizer.state, ([name, tensor]) => sourceOfFloats(name, tensor));
        await writeSafetensors(join(folder, optimizerFile), sources);
      },
    },
    {
      keep: CHECKPOINTS_KEPT,
      best:
        state.best === null ? undefined : { metric: plan.best!.metric, step: state.best.step, value: state.best.value },
    },
  );
}

async function resume(plan: LoopPlan, path: string): Promise<{ done: number; state: LoopState }> {
  const { step, state } = await restore(plan, path);
  plan.carried?.load(state.carried);
  // What is replayed only is looked at: nothing of the run changes.
  if (plan.replay === true) return { done: step, state };
  // A run that went on from here before may have been killed between a look at held-out data and its own checkpoint.
  if (state.recorded !== null) plan.run.forgetAfter(state.recorded);
  // A run that was killed between the two has saved a checkpoint, but not removed those that it makes superfluous.
  await plan.run.prune(CHECKPOINTS_KEPT);
  return { done: step, state };
}

/** Goes back to the weights that were best on held-out data; returns their step. */
async function restoreBest(plan: LoopPlan, done: number, best: number): Promise<number> {
  if (best !== done) await restore(plan, plan.run.checkpointPath(best));
  return best;
}

/** Takes weights, moments and the count of updates from a checkpoint. */
async function restore({ learner, stage }: LoopPlan, path: string): Promise<Checkpoint<LoopState>> {
  const checkpoint = await loadCheckpoint(path, { stage, schema: stateSchema });
  const updates = checkpoint.step - checkpoint.state.stability.skipped;
  const { tensors } = await readHeader(checkpoint.file(optimizerFile));
  const saved = Array.from(tensors.values(), (info): [string, SavedTensor] => [
    info.name,
    { shape: info.shape, read: () => readFloats(info) },
  ]);
  await learner.optimizer.restore(updates, new Map(saved), path);
  return checkpoint;
}
