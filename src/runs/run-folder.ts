import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { AppendFile } from './append-file.js';
import { pruneCheckpoints } from './checkpoint-retention.js';
import type { Best } from './checkpoint-state.js';
import { checkpointPath, type CheckpointRef, saveCheckpoint, type SaveCheckpoint } from './checkpoints.js';
import type { StageContext, StageEvent } from './events.js';
import { writeFault } from './file-faults.js';
import { JsonLines } from './json-lines.js';
import type { FolderLock } from './lock.js';
import { type Intervention, type Manifest, writeManifest } from './manifest.js';
import { encodeMetrics, type MetricRow } from './metrics.js';
import { prepareFolder, type RunRequest } from './prepare.js';
import { EventWriter } from './tensorboard/writer.js';

export type { RunRequest } from './prepare.js';

const EVENTS = 'tensorboard';

/** How many checkpoints a run keeps, and which is the best so far. */
export interface Retention {
  /** The newest this many stay, and the best of each; all of them if undefined. */
  keep?: number;
  best?: Best | undefined;
}

/**
 * Opens the folder that a stage writes to, and locks it until the run is closed. A new or empty folder begins a run; one
 * that holds something is refused, and nothing in it changed, unless `resume` is set and it is a run of the same stage,
 * seed and inputs, and of the same configuration unless `force` is set. Resuming takes up the newest whole checkpoint
 * (`resumeFrom`) and drops the metrics, rows and events of later steps; newer checkpoints that are not whole are moved
 * aside; without a whole checkpoint the run starts over and a `warning` event says so.
 *
 * @throws UserError `run.not-empty`, `run.other`, `run.changed-config`, `run.locked`, `run.manifest`, `run.newer`,
 *   `checkpoint.newer`, `checkpoint.stage`, `checkpoint.inputs`, `file.unwritable` (exit code 2), `file.disk` (3)
 */
export async function openRunFolder(request: RunRequest & Pick<StageContext, 'onEvent'>): Promise<RunFolder> {
  const { manifest, resumed, checkpoint, skipped, warnings, lock } = await prepareFolder(request);
  const out = resolve(request.out);
  try {
    for (const { path } of skipped) moveAside(path);
    const run = new RunFolder(out, { manifest, lock }, request.onEvent, resumed ? (checkpoint ?? 'start') : 'new');
    await writeManifest(out, manifest);
    for (const warning of warnings) run.emit({ type: 'warning', ...warning });
    return run;
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Takes a broken checkpoint out of the row, for a person to look at: its step will be saved again. */
function moveAside(path: string): void {
  const aside = join(dirname(path), `broken-${basename(path)}`);
  try {
    rmSync(aside, { recursive: true, force: true });
    renameSync(path, aside);
  } catch (error) {
    throw writeFault(error, path);
  }
}

/** An open run folder: what a stage writes while it runs. Made by `openRunFolder`. */
export class RunFolder {
  /** Absolute path of the folder. */
  readonly path: string;
  /** The checkpoint to go on from, verified; undefined for a run that begins at step 0. */
  readonly resumeFrom: CheckpointRef | undefined;
  readonly #manifest: Manifest;
  readonly #lock: FolderLock;
  readonly #listener: (event: StageEvent) => void;
  /** Rows after this step belong to a past that is done again; undefined in a new run. */
  readonly #lastStep: number | undefined;
  readonly #lines = new Map<string, JsonLines>();
  readonly #events: EventWriter;

  constructor(
    path: string,
    { manifest, lock }: { manifest: Manifest; lock: FolderLock },
    listener: (event: StageEvent) => void,
    origin: 'new' | 'start' | CheckpointRef,
  ) {
    this.path = path;
    this.#manifest = manifest;
    this.#lock = lock;
    this.#listener = listener;
    this.resumeFrom = typeof origin === 'string' ? undefined : origin;
    this.#lastStep = origin === 'new' ? undefined : (this.resumeFrom?.step ?? -1);
    this.#events = new EventWriter(
      join(path, EVENTS),
      this.#lastStep === undefined ? {} : { purgeFrom: this.#lastStep + 1 },
    );
    if (this.#lastStep === undefined) this.lines('metrics.jsonl');
    else for (const name of readdirSync(path)) if (name.endsWith('.jsonl')) this.lines(name);
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

  /** How many bytes each file of rows or events has, by its path in the folder, with everything recorded so far in it. */
  recorded(): Record<string, number> {
    this.#sync();
    return Object.fromEntries(this.#recordFiles().map((name) => [name, statSync(this.file(name)).size]));
  }

  /**
   * Takes back what was recorded after `recorded` told the sizes: of a step that is done, what a resumed run does again.
   * Called before it records anything itself.
   */
  forgetAfter(sizes: Readonly<Record<string, number>>): void {
    for (const name of this.#recordFiles()) {
      const size = sizes[name] ?? 0;
      if (statSync(this.file(name)).size <= size) continue;
      const file = new AppendFile(this.file(name));
      file.truncate(size);
      file.close();
    }
  }

  #recordFiles(): string[] {
    const events = existsSync(this.file(EVENTS))
      ? readdirSync(this.file(EVENTS)).map((name) => join(EVENTS, name))
      : [];
    return [...readdirSync(this.path).filter((name) => name.endsWith('.jsonl')), ...events];
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

  /** How many of `asked` samples go through the model at once: fewer where memory ran out before. */
  microBatch(asked: number): number {
    return Math.min(asked, this.#manifest.microBatch ?? asked);
  }

  /** Records in the manifest what was done about something that went wrong, and tells it as a warning. */
  async intervene({ step, code, message }: Omit<Intervention, 'at'>): Promise<void> {
    this.#manifest.interventions.push({ step, at: new Date().toISOString(), code, message });
    await writeManifest(this.path, this.#manifest);
    this.emit({ type: 'warning', code, message });
  }

  /** Where the checkpoint of a step stands or will stand. */
  checkpointPath(step: number): string {
    return checkpointPath(this.path, step);
  }

  /**
   * Saves `checkpoints/step-N/` whole or not at all (see `saveCheckpoint`), after syncing the rows up to it; removes old
   * ones; emits `checkpoint`.
   */
  async saveCheckpoint<State>(save: Omit<SaveCheckpoint<State>, 'stage'>, retention: Retention = {}): Promise<string> {
    this.#sync();
    const { stage, fingerprints } = this.#manifest;
    const { keep, best } = retention;
    const { step, path } = await saveCheckpoint(this.path, { ...save, stage, fingerprints, best });
    if (keep !== undefined) await this.prune(keep);
    this.emit({ type: 'checkpoint', step, path });
    return path;
  }

  /** Removes checkpoints that need not be kept any more: see `pruneCheckpoints`. */
  async prune(keep: number): Promise<void> {
    await pruneCheckpoints(this.path, keep);
  }

  /** Marks the stage as complete, closes the files and emits `end`. What the stage leaves must be in place before. */
  async finish(): Promise<void> {
    this.#sync();
    this.#manifest.finishedAt = new Date().toISOString();
    await writeManifest(this.path, this.#manifest);
    this.close();
    this.emit({ type: 'end', out: this.path });
  }

  /** Flushes and closes the files and frees the folder. For a run that stops before its end; `finish` does it too. */
  close(): void {
    try {
      this.#events.close();
      for (const lines of this.#lines.values()) lines.close();
    } finally {
      this.#lock.release();
    }
  }

  /** Everything recorded so far survives a power cut from here on. */
  #sync(): void {
    this.#events.sync();
    for (const lines of this.#lines.values()) lines.sync();
  }

  #recordMetrics({ step, epoch, values }: MetricRow): void {
    this.lines('metrics.jsonl').append(encodeMetrics({ step, epoch, values }));
    for (const [name, value] of Object.entries(values)) this.#events.scalar(name, step, value);
    this.#events.flush();
  }
}
