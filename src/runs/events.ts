/** What a stage reports while it runs. A stage never prints: the command line, a progress bar or a test listens. */
export type StageEvent =
  /** The stage begins to write to `out`; `totalSteps` counts optimizer steps where they are known. */
  | { type: 'start'; stage: string; totalSteps?: number; out: string }
  /** `done` of `total` units of `task` (a step, a row, a byte); `note` is for people: the current loss, a file name. */
  | { type: 'progress'; task: string; done: number; total?: number; note?: string }
  /** One log line: metrics by their names at an optimizer step; `epoch` counts passes over the data, with fractions. */
  | { type: 'metrics'; step: number; epoch: number; values: Record<string, number> }
  /** A text that the model wrote after `step`; `label` says what was asked, for example `headline`. */
  | { type: 'sample'; step: number; label: string; prompt: string; completion: string; reward?: number }
  /** A whole checkpoint of `step` stands at `path`. */
  | { type: 'checkpoint'; step: number; path: string }
  /** Something that a person should know and that does not stop the run; `code` is stable, like that of an error. */
  | { type: 'warning'; code: string; message: string }
  /** Something that people often wonder about, explained when it occurs; `code` is stable. */
  | { type: 'note'; code: string; message: string }
  /** The stage is complete and `out` is whole. */
  | { type: 'end'; out: string };

/** What surrounds a stage: who listens, and who may stop it after its current step. */
export interface StageContext {
  onEvent(event: StageEvent): void;
  signal?: AbortSignal;
  /** Repeats the step after the checkpoint to see what goes wrong in it, in place of going on; see `replayStep`. */
  replay?: boolean;
}

/** Thrown by a stage that was asked to stop, after it left a checkpoint of `step` in `runFolder` to resume from. */
export class Interrupted extends Error {
  readonly exitCode = 130;
  readonly runFolder: string;
  readonly step: number;

  constructor(runFolder: string, step: number) {
    super(`Interrupted after step ${step}. ${runFolder} holds a checkpoint; pass --resume to go on.`);
    this.name = 'Interrupted';
    this.runFolder = runFolder;
    this.step = step;
  }
}
