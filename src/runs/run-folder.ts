import { join, resolve } from 'node:path';
import { forgetBestAfter, markBest, pruneCheckpoints } from './checkpoint-retention.js';
import { checkpointPath, type CheckpointRef, saveCheckpoint, type SaveCheckpoint } from './checkpoints.js';
import type { StageContext, StageEvent } from './events.js';
import { JsonLines } from './json-lines.js';
import { type Manifest, writeManifest } from './manifest.js';
import { encodeMetrics, type MetricRow } from './metrics.js';
import { prepareFolder, type RunRequest } from './prepare.js';
import { EventWriter } from './tensorboard/writer.js';

export type { RunRequest } from './prepare.js';

/** How many checkpoints a run keeps, and whether the one being saved is the best so far. */
export interface Retention {
  /** The newest this many stay, and the best; all of them if undefined. */
  keep?: number;
  best?: { metric: string; value: number };
}

/**
 * Opens the folder that a stage writes to. A new or empty folder begins a run; one that holds something is refused, and
 * nothing in it changed, unless `resume` is set and it is a run of the same stage, seed and inputs. Resuming takes up
 * the newest whole checkpoint (`resumeFrom`) and drops the metrics, rows and events of later steps; without a whole
 * checkpoint the run starts over and a `warning` event says so.
 *
 * @throws UserError `run.not-empty`, `run.other`, `run.manifest`, `file.unwritable` (exit code 2), `file.disk` (3)
 */
export async function openRunFolder(request: RunRequest & Pick<StageContext, 'onEvent'>): Promise<RunFolder> {
  const { manifest, resumed, checkpoint, warnings } = await prepareFolder(request);
  const run = new RunFolder(resolve(request.out), manifest, request.onEvent, resumed ? (checkpoint ?? 'start') : 'new');
  if (resumed) await forgetBestAfter(run.path, checkpoint?.step ?? -1);
  await writeManifest(run.path, manifest);
  for (const warning of warnings) run.emit({ type: 'warning', ...warning });
  return run;
}

/** An open run folder: what a stage writes while it runs. Made by `openRunFolder`. */
export class RunFolder {
  /** Absolute path of the folder. */
  readonly path: string;
  /** The checkpoint to go on from, verified; undefined for a run that begins at step 0. */
  readonly resumeFrom: CheckpointRef | undefined;
  readonly #manifest: Manifest;
  readonly #listener: (event: StageEvent) => void;
  /** Rows after this step belong to a past that is done again; undefined in a new run. */
  readonly #lastStep: number | undefined;
  readonly #lines = new Map<string, JsonLines>();
  readonly #events: EventWriter;

  constructor(
    path: string,
    manifest: Manifest,
    listener: (event: StageEvent) => void,
    origin: 'new' | 'start' | CheckpointRef,
  ) {
    this.path = path;
    this.#manifest = manifest;
    this.#listener = listener;
    this.resumeFrom = typeof origin === 'string' ? undefined : origin;
    this.#lastStep = origin === 'new' ? undefined : (this.resumeFrom?.step ?? -1);
    this.#events = new EventWriter(
      join(path, 'tensorboard'),
      this.#lastStep === undefined ? {} : { purgeFrom: this.#lastStep + 1 },
    );
    this.lines('metrics.jsonl');
  }

  get manifest(): Readonly<Manifest> {
    return this.#manifest;
  }

  /** The path of `name` in the folder. */
  file(name: string): string {
    return join(this.path, name);
  }

  /**
   * A JSON Lines file of the run, such as `rollouts.jsonl`, opened once and closed with the run. On resuming, rows after
   * the checkpoint are dropped.
   */
  lines(name: string): JsonLines {
    let lines = this.#lines.get(name);
    if (lines === undefined) {
      lines = new JsonLines(this.file(name));
      if (this.#lastStep !== undefined) lines.truncateAfter(this.#lastStep);
      this.#lines.set(name, lines);
    }
    return lines;
  }

  /**
   * Records an event and passes it on to the listener: metrics go to `metrics.jsonl` and TensorBoard, samples to
   * TensorBoard as text.
   */
  emit(event: StageEvent): void {
    if (event.type === 'metrics') this.#recordMetrics(event);
    if (event.type === 'sample') {
      const reward = event.reward === undefined ? '' : `\n\nreward: ${event.reward}`;
      this.#events.text(`samples/${event.label}`, event.step, `${event.prompt}\n\n---\n\n${event.completion}${reward}`);
    }
    this.#listener(event);
  }

  /** Where the checkpoint of a step stands or will stand. */
  checkpointPath(step: number): string {
    return checkpointPath(this.path, step);
  }

  /**
   * Saves `checkpoints/step-N/` whole or not at all (see `saveCheckpoint`), after syncing the rows up to it; marks it
   * if it is the best; removes old ones; emits `checkpoint`.
   */
  async saveCheckpoint<State>(save: Omit<SaveCheckpoint<State>, 'stage'>, retention: Retention = {}): Promise<string> {
    this.#events.flush();
    for (const lines of this.#lines.values()) lines.sync();
    const { step, path } = await saveCheckpoint(this.path, { ...save, stage: this.#manifest.stage });
    if (retention.best !== undefined) await markBest(this.path, { step, ...retention.best });
    if (retention.keep !== undefined) await pruneCheckpoints(this.path, retention.keep);
    this.emit({ type: 'checkpoint', step, path });
    return path;
  }

  /** Marks the stage as complete, closes the files and emits `end`. What the stage leaves must be in place before. */
  async finish(): Promise<void> {
    for (const lines of this.#lines.values()) lines.sync();
    this.close();
    this.#manifest.finishedAt = new Date().toISOString();
    await writeManifest(this.path, this.#manifest);
    this.emit({ type: 'end', out: this.path });
  }

  /** Flushes and closes the files. For a run that stops before its end; `finish` does it too. */
  close(): void {
    this.#events.close();
    for (const lines of this.#lines.values()) lines.close();
  }

  #recordMetrics({ step, epoch, values }: MetricRow): void {
    this.lines('metrics.jsonl').append(encodeMetrics({ step, epoch, values }));
    for (const [name, value] of Object.entries(values)) this.#events.scalar(name, step, value);
    this.#events.flush();
  }
}
