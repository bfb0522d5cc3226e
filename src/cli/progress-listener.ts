import cliProgress, { type Options, type Params, type SingleBar } from 'cli-progress';
import type { StageEvent } from '../runs/events.js';
import type { PeopleStream } from './entry.js';
import { safeText, showDuration, showEvent, showMetrics, showProgress } from './event-text.js';
import type { Listener } from './listener.js';

export interface ProgressOptions {
  readonly stream: PeopleStream;
  /** Only warnings are told. */
  readonly quiet: boolean;
  /** Milliseconds on some clock that never goes back. */
  readonly now?: () => number;
}

/** Tells people how a stage is going: with a bar on a terminal, in plain lines elsewhere. */
export function progressListener({ stream, quiet, now = () => performance.now() }: ProgressOptions): Listener {
  const write = (line: string): void => {
    stream.write(`${line}\n`);
  };
  if (quiet) return warningListener(write);
  return stream.isTTY === true ? new Bar(stream) : lineListener(write, now);
}

function warningListener(write: (line: string) => void): Listener {
  return {
    onEvent: (event) => {
      if (event.type === 'warning') write(showEvent(event));
    },
    close: () => undefined,
  };
}

/** Milliseconds between two lines of the same kind, where nothing but time has passed. */
const LINE_INTERVAL = { progress: 5000, metrics: 1000 } as const;

function lineListener(write: (line: string) => void, now: () => number): Listener {
  const last = { progress: -Infinity, metrics: -Infinity };
  let task: string | undefined;
  const isDue = (kind: keyof typeof last): boolean => {
    if (now() - last[kind] < LINE_INTERVAL[kind]) return false;
    last[kind] = now();
    return true;
  };
  return {
    onEvent: (event) => {
      if (event.type === 'progress') {
        // The beginning and the end of a task are always told.
        const isEdge = event.task !== task || event.done === event.total;
        task = event.task;
        if (isDue('progress') || isEdge) write(showProgress(event));
      } else if (event.type !== 'metrics' || isDue('metrics')) {
        write(showEvent(event));
      }
    },
    close: () => undefined,
  };
}

/** A bar with the time that is left and the newest metrics; all else scrolls above it. */
class Bar implements Listener {
  readonly #stream: PeopleStream;
  readonly #bar: SingleBar;
  #task: string | undefined;
  #metrics = '';

  constructor(stream: PeopleStream) {
    this.#stream = stream;
    this.#bar = new cliProgress.SingleBar(
      {
        stream,
        format: (options, params, payload: Payload) => barText(options, params, payload, stream.columns ?? 80),
        barsize: 24,
        etaBuffer: 50,
        clearOnComplete: true,
        // A line that scrolls by leaves the bar's line empty.
        forceRedraw: true,
        // Ctrl-C belongs to the command, which first saves; nothing is changed that a sudden end would leave behind.
        gracefulExit: false,
        linewrap: true,
      },
      cliProgress.Presets.rect,
    );
  }

  onEvent(event: StageEvent): void {
    if (event.type === 'progress') {
      this.#progress(event);
      return;
    }
    if (event.type === 'metrics') this.#metrics = showMetrics(event.values);
    else if (event.type !== 'checkpoint') this.#stream.write(`${CLEAR_LINE}${showEvent(event)}\n`);
  }

  close(): void {
    if (this.#task !== undefined) this.#bar.stop();
  }

  #progress({ task, done, total, note }: Extract<StageEvent, { type: 'progress' }>): void {
    const payload: Payload = { task, isMeasured: total !== undefined, tail: safeText(note ?? this.#metrics) };
    if (task !== this.#task) {
      if (this.#task !== undefined) this.#bar.stop();
      this.#task = task;
      this.#bar.start(total ?? 0, done, payload);
    }
    if (total !== undefined) this.#bar.setTotal(total);
    this.#bar.update(done, payload);
  }
}

interface Payload {
  readonly task: string;
  /** Whether it is known how much there is to do. */
  readonly isMeasured: boolean;
  readonly tail: string;
}

const CLEAR_LINE = '\r\u001b[K';

function barText(options: Options, { progress, value, total, eta }: Params, payload: Payload, columns: number): string {
  const { task, isMeasured, tail } = payload;
  const parts = isMeasured
    ? [`${task} ${cliProgress.Format.BarFormat(progress, options)} ${value}/${total}`]
    : [`${task} ${value}`];
  if (isMeasured && Number.isFinite(eta)) parts.push(`${showDuration(eta)} left`);
  if (tail !== '') parts.push(tail);
  return parts.join(' · ').slice(0, columns - 1);
}
