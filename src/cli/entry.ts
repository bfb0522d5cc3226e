import type { Command } from 'commander';

/** Where people read: a terminal, or a pipe or file. */
export type PeopleStream = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };

/** What a command gets from the process around it. */
export interface Host {
  /** Aborted by Ctrl-C or when nobody reads the output any more. */
  readonly signal: AbortSignal;
  /** Writes a line for machines: stdout. */
  readonly print: (line: string) => void;
  /** Where people read how it goes: stderr. */
  readonly people: PeopleStream;
  /** Does a training command, whose run folder is `out`, in a process of its own; false where this one is to do it. */
  readonly elsewhere: (out: string) => Promise<boolean>;
}

/** Gives a command its arguments, options and action. */
export type Setup = (command: Command, host: Host) => void;

/** A row of the command table. */
export interface Entry {
  /** Name as it is typed, `sft` or `data check`. */
  readonly name: string;
  readonly summary: string;
  /** Loads what the command needs; called only when it is invoked. */
  readonly load: () => Promise<Setup>;
}
