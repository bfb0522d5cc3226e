import { existsSync, readdirSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { AppendFile } from '../append-file.js';
import { frameRecord } from './records.js';
import { DT_STRING, encodeEvent, type EventMessageInput, SESSION_START } from './schema.js';

/** Buffered bytes above which a writer flushes by itself. */
const BUFFER_LIMIT = 64 * 1024;

const FILE_NAME = /^events\.out\.tfevents\.(\d+)\./;

let filesOfThisProcess = 0;

export interface EventWriterOptions {
  /** For a resumed run: readers forget events of this step and later ones in earlier files. */
  purgeFrom?: number;
}

/**
 * Writes TensorBoard event files as torch's `SummaryWriter` does. The file is made at the first flush, so a run that
 * reports nothing leaves none; each writer makes its own, which sorts after those already in the folder.
 */
export class EventWriter {
  readonly #folder: string;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #file: AppendFile | undefined;
  readonly #purgeFrom: number | undefined;
  #begun = false;

  constructor(folder: string, { purgeFrom }: EventWriterOptions = {}) {
    this.#folder = folder;
    this.#purgeFrom = purgeFrom;
  }

  /** The file being written; undefined before the first flush. */
  get path(): string | undefined {
    return this.#file?.path;
  }

  /** A number under `tag` at `step`, stored as float32; NaN and infinities too. `wallTime` is in seconds since 1970. */
  scalar(tag: string, step: number, value: number, wallTime = now()): void {
    this.#add({ wallTime, step, summary: { value: [{ tag, simpleValue: value }] } });
  }

  /** A text (Markdown) for the text dashboard, under `tag` + `/text_summary`. */
  text(tag: string, step: number, text: string, wallTime = now()): void {
    const value = {
      tag: `${tag}/text_summary`,
      tensor: { dtype: DT_STRING, tensorShape: { dim: [{ size: 1 }] }, stringVal: [Buffer.from(text, 'utf8')] },
      metadata: { pluginData: { pluginName: 'text' } },
    };
    this.#add({ wallTime, step, summary: { value: [value] } });
  }

  /** Hands everything added so far to the operating system. */
  flush(): void {
    if (this.#pending.length === 0) return;
    this.#file ??= new AppendFile(join(this.#folder, nextFileName(this.#folder)));
    this.#file.append(Buffer.concat(this.#pending));
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  /** Flushes, and waits until everything is on the disk. */
  sync(): void {
    this.flush();
    this.#file?.sync();
  }

  /** Flushes and closes the file. */
  close(): void {
    this.flush();
    this.#file?.close();
  }

  #add(message: EventMessageInput): void {
    if (!this.#begun) this.#begin(message.wallTime ?? now());
    this.#push(message);
    if (this.#pendingBytes > BUFFER_LIMIT) this.flush();
  }

  #begin(wallTime: number): void {
    this.#begun = true;
    this.#push({ wallTime, fileVersion: 'brain.Event:2', sourceMetadata: { writer: 'duanzi' } });
    if (this.#purgeFrom !== undefined) {
      this.#push({ wallTime, step: this.#purgeFrom, sessionLog: { status: SESSION_START } });
    }
  }

  #push(message: EventMessageInput): void {
    const record = frameRecord(encodeEvent(message));
    this.#pending.push(record);
    this.#pendingBytes += record.length;
  }
}

function now(): number {
  return Date.now() / 1000;
}

/**
 * `events.out.tfevents.SECONDS.HOST.PID.N`. Readers go through files by name, so the seconds are at least one more than
 * in the names already there.
 */
function nextFileName(folder: string): string {
  const taken = existsSync(folder) ? readdirSync(folder).map((name) => Number(FILE_NAME.exec(name)?.[1] ?? 0)) : [];
  const seconds = Math.max(Math.floor(now()), ...taken.map((second) => second + 1));
  return `events.out.tfevents.${String(seconds).padStart(10, '0')}.${hostname()}.${process.pid}.${filesOfThisProcess++}`;
}
