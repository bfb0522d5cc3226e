import { nearestKey } from './nearest.js';

/** One value that was given for one key, and by whom. */
export interface Setting {
  /** The key, one name a level. */
  readonly path: readonly string[];
  /** The name within a table that alone is set; absent where the whole value is. */
  readonly entry?: string;
  /** Null takes back what was set before. */
  readonly value: unknown;
  /** Who said so: `nano.yaml:12:3`, `--set sft.epochs`, `--seed`. */
  readonly where: string;
  /** Folder that a relative path is relative to. */
  readonly base: string;
}

/** What is wrong with a setting, or with the lack of one. */
export interface Problem {
  readonly code: string;
  /** A sentence that begins with the dotted key. */
  readonly message: string;
  readonly where: string | undefined;
  readonly fix: string;
}

/** The problem of a key that no stage has, with the nearest one that there is. */
export function unknownKey(path: readonly string[], where: string, known: readonly string[]): Problem {
  const near = nearestKey(path, known);
  return {
    code: 'config.unknown-key',
    message: `${path.join('.')} is not a known key.`,
    where,
    fix: near === undefined ? 'Remove it.' : `Did you mean ${near}?`,
  };
}

/** The problem of a section that was given a single value. */
export function notASection(path: readonly string[], where: string): Problem {
  const dotted = path.join('.');
  return {
    code: 'config.section',
    message: `${dotted} is a section and takes no value of its own.`,
    where,
    fix: 'Set its keys one by one.',
  };
}
