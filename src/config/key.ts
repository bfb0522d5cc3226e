import type { z } from 'zod';

/** What the loader and the command line must know of a key beside its type; kept in the schema's metadata. */
export interface KeyNotes {
  /** The value is a file or folder: relative to the working directory, or to the YAML file that says it. */
  readonly path?: true;
  /** The path is a model's folder, and the name of a model on a hub may stand for it. */
  readonly model?: true;
  /** Command-line flag in commander's notation, for example `--seed <n>`. */
  readonly flag?: string;
  /** Dotted key of the recipe that stands in when this one is not given. */
  readonly from?: string;
  /** How to write the default where its value belongs to the machine. */
  readonly defaultText?: string;
}

/** Metadata names in the schema: JSON Schema's extension style, so that they pass through its generator. */
export const NOTE = {
  path: 'x-path',
  model: 'x-model',
  flag: 'x-flag',
  from: 'x-from',
  defaultText: 'x-default',
} as const;

/**
 * One key of the configuration: its schema with a sentence of help and notes.
 * Call it last, after `.default()` or `.optional()`: metadata does not travel outwards through wrappers.
 */
export function key<T extends z.ZodType>(schema: T, help: string, notes: KeyNotes = {}): T {
  const meta: Record<string, unknown> = { description: help };
  for (const name of Object.keys(NOTE) as (keyof KeyNotes)[]) {
    if (notes[name] !== undefined) meta[NOTE[name]] = notes[name];
  }
  return schema.meta(meta);
}

export interface RefineContext {
  addIssue(issue: { code: 'custom'; path: string[]; message: string; params: { fix: string } }): void;
}

/** Reports settings that are right one by one and impossible together. `at` is the key's path from the schema refined. */
export function refuse(context: RefineContext, at: string[], message: string, fix: string): void {
  context.addIssue({ code: 'custom', path: at, message, params: { fix } });
}
