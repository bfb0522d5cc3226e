import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { unframeRecords } from './records.js';
import {
  decodeEvent,
  DT_STRING,
  type EventMessage,
  type Histogram,
  SESSION_START,
  type SummaryValueMessage,
} from './schema.js';

/** One value of a summary. `plugin` is the dashboard that its writer meant it for, or an empty string. */
export type SummaryValue =
  | { kind: 'scalar'; tag: string; value: number }
  | { kind: 'text'; tag: string; plugin: string; shape: number[]; texts: string[] }
  | { kind: 'histogram'; tag: string; histogram: Histogram }
  | { kind: 'other'; tag: string; plugin: string };

/** A record of an event file. */
export interface TensorBoardEvent {
  /** Seconds since 1970. */
  wallTime: number;
  step: number;
  /** In the first record: `brain.Event:2`. */
  fileVersion?: string;
  /** A resumed run begins: earlier events of this step and later ones do not count. */
  sessionStart: boolean;
  values: SummaryValue[];
}

/** The events of a file; `torn` if its last record is cut off, as a running or killed writer leaves it. */
export interface EventFile {
  events: TensorBoardEvent[];
  torn: boolean;
}

/** A point of a curve. */
export interface ScalarPoint {
  step: number;
  wallTime: number;
  value: number;
}

/**
 * Reads a TensorBoard event file, checking every checksum.
 *
 * @throws UserError `tensorboard.checksum` naming the file and the byte at which a damaged record begins
 */
export function readEvents(path: string): EventFile {
  const { records, torn } = unframeRecords(readFileSync(path), path);
  return { events: records.map((record) => toEvent(decodeEvent(record))), torn };
}

/**
 * The curves in the event files of a folder, by tag, as TensorBoard shows them: files in the order of their names, and
 * what a resumed run did again only once.
 */
export function readScalars(folder: string): Map<string, ScalarPoint[]> {
  const curves = new Map<string, ScalarPoint[]>();
  const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.includes('tfevents')) : [];
  for (const file of files.sort()) {
    for (const { step, wallTime, sessionStart, values } of readEvents(join(folder, file)).events) {
      if (sessionStart) forgetFrom(curves, step);
      for (const value of values) {
        if (value.kind !== 'scalar') continue;
        const curve = curves.get(value.tag) ?? [];
        curve.push({ step, wallTime, value: value.value });
        curves.set(value.tag, curve);
      }
    }
  }
  return curves;
}

function forgetFrom(curves: Map<string, ScalarPoint[]>, step: number): void {
  for (const [tag, points] of curves) {
    const kept = points.filter((point) => point.step < step);
    if (kept.length > 0) curves.set(tag, kept);
    else curves.delete(tag);
  }
}

function toEvent({ wallTime, step, fileVersion, summary, sessionLog }: EventMessage): TensorBoardEvent {
  return {
    wallTime,
    step: step ?? 0,
    ...(fileVersion === undefined ? {} : { fileVersion }),
    sessionStart: sessionLog?.status === SESSION_START,
    values: (summary?.value ?? []).map(toValue),
  };
}

function toValue({ tag, simpleValue, histo, tensor, metadata }: SummaryValueMessage): SummaryValue {
  const plugin = metadata?.pluginData?.pluginName ?? '';
  if (simpleValue !== undefined) return { kind: 'scalar', tag, value: simpleValue };
  if (histo !== undefined) return { kind: 'histogram', tag, histogram: histo };
  if (tensor?.dtype === DT_STRING) {
    const texts = tensor.stringVal.map((bytes) => Buffer.from(bytes).toString('utf8'));
    return { kind: 'text', tag, plugin, shape: tensor.tensorShape.dim.map(({ size }) => size), texts };
  }
  return { kind: 'other', tag, plugin };
}
