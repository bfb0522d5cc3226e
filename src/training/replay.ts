import { cp, mkdir, mkdtemp, rm, stat, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { UserError } from '../errors.js';
import { checkpointPath, latestCheckpoint } from '../runs/checkpoints.js';
import type { StageContext } from '../runs/events.js';
import { manifestPath } from '../runs/manifest.js';

/** What repeating a step showed. */
export interface Replay {
  /** Steps done when it ends, from 1: as it is called in the log. */
  readonly step: number;
  /** What of it is not finite; undefined where all is. */
  readonly problem: string | undefined;
  /** Where in the graph the first such number arises. */
  readonly origin: string | undefined;
  /** Places of its rows, as `file:line`. */
  readonly rows: readonly string[];
  readonly metrics: Readonly<Record<string, number>>;
}

/** Thrown by a loop that was to repeat one step. */
export class Replayed extends Error {
  constructor(readonly result: Replay) {
    super(`step ${result.step} was repeated`);
    this.name = 'Replayed';
  }
}

/** Made again or read by a stage that goes on; everything else that a run writes is left out. */
const READ_BY_STAGES = ['policy', 'tokenizer'];

/**
 * Repeats the step after the newest whole checkpoint of a run and tells what of it is not finite and where that arises.
 * It is done in a copy, so the run folder stays as it is.
 *
 * @throws UserError when the run folder has no checkpoint
 */
export async function replayStep<Config extends { readonly out: string; readonly resume: boolean }>(
  stage: (config: Config, context: StageContext) => Promise<string>,
  config: Config,
  context: StageContext,
): Promise<Replay> {
  const out = path.resolve(config.out);
  const { checkpoint } = await latestCheckpoint(out);
  if (checkpoint === undefined) {
    throw new UserError({
      code: 'run.no-checkpoint',
      message: 'There is no whole checkpoint whose next step could be repeated.',
      where: path.join(out, 'checkpoints'),
      fix: 'Give the --out of a run that stopped for a number that is not finite.',
    });
  }
  const copy = await mkdtemp(path.join(tmpdir(), 'duanzi-replay-'));
  try {
    await cp(manifestPath(out), manifestPath(copy));
    await mkdir(path.join(copy, 'checkpoints'));
    const { step, record } = checkpoint;
    for (const needed of new Set([step, record.best?.step ?? step, record.anchor ?? step])) {
      await cp(checkpointPath(out, needed), checkpointPath(copy, needed), { recursive: true });
    }
    for (const name of READ_BY_STAGES) {
      const there = await stat(path.join(out, name)).catch(() => undefined);
      if (there !== undefined) await symlink(path.join(out, name), path.join(copy, name));
    }
    const onEvent: StageContext['onEvent'] = (event) => {
      if (event.type === 'warning') context.onEvent(event);
    };
    await stage({ ...config, out: copy, resume: true }, { ...context, onEvent, replay: true });
    throw new UserError({
      code: 'run.finished',
      message: 'The run is at its end: there is no next step to repeat.',
      where: out,
      fix: 'Give the --out of a run that stopped for a number that is not finite.',
    });
  } catch (error) {
    if (error instanceof Replayed) return error.result;
    throw error;
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}
