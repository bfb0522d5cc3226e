import { createHash } from 'node:crypto';
import { completionOf, headlineOf, type Row } from './row.js';

export interface SplitOptions {
  /** Another seed gives another split. */
  readonly seed: number;
  /** Share of headlines (not of rows) held out for validation, from 0 to 1. */
  readonly validationFraction: number;
}

export interface Split {
  readonly train: readonly Row[];
  readonly validation: readonly Row[];
}

/** A split of one of several files, after the rows that would leak were taken out of training. */
export interface GuardedSplit extends Split {
  /** Rows that fell to train and share their headline or completion with a held-out row of some file. */
  readonly dropped: readonly Row[];
}

/**
 * The one split. A row's side depends on its normalised headline (without one, on its completion), the seed and the
 * fraction, and on nothing else: not on the file, the order or the other rows. So all stages agree on it, and rows that
 * share a headline stay together. A larger fraction holds out a superset.
 */
export function splitRows(rows: readonly Row[], options: SplitOptions): Split {
  const train: Row[] = [];
  const validation: Row[] = [];
  for (const row of rows) (isHeldOut(groupOf(row), options) ? validation : train).push(row);
  return { train, validation };
}

/**
 * Splits the files of a folder and then drops from every train side the rows whose headline or completion occurs in a
 * validation row of any file, or in a test file.
 *
 * @param files Name → rows of the files that are trained on.
 * @param tests Rows that are never trained on.
 */
export function splitFiles<Files extends Readonly<Partial<Record<string, readonly Row[]>>>>(
  files: Files,
  options: SplitOptions,
  tests: readonly Row[] = [],
): { [Name in keyof Files]: GuardedSplit } {
  const splits = Object.entries(files).map(([name, rows = []]) => ({ name, ...splitRows(rows, options) }));
  const heldOut = new Set([...splits.flatMap(({ validation }) => validation), ...tests].flatMap(identitiesOf));
  const leaks = (row: Row): boolean => identitiesOf(row).some((identity) => heldOut.has(identity));
  const guarded = splits.map(({ name, train, validation }): [string, GuardedSplit] => [
    name,
    { train: train.filter((row) => !leaks(row)), validation, dropped: train.filter(leaks) },
  ]);
  return Object.fromEntries(guarded) as { [Name in keyof Files]: GuardedSplit };
}

/**
 * What two texts must share to count as the same: case, width (full or half), spaces and punctuation do not matter,
 * unless nothing else is there.
 */
export function normalise(text: string): string {
  const folded = text.normalize('NFKC').toLowerCase();
  const letters = folded.replace(/[\s\p{P}\p{S}]+/gu, '');
  return letters === '' ? folded.trim() : letters;
}

function groupOf(row: Row): string {
  return identitiesOf(row)[0]!;
}

/** The headline's identity, where there is a headline, then the completion's. */
function identitiesOf(row: Row): string[] {
  const headline = headlineOf(row);
  const completion = `completion ${normalise(completionOf(row))}`;
  return headline === undefined ? [completion] : [`headline ${normalise(headline)}`, completion];
}

function isHeldOut(group: string, { seed, validationFraction }: SplitOptions): boolean {
  // The first 48 bits of the digest as a fraction of one.
  const digest = createHash('sha256').update(`${seed}\n${group}`).digest();
  return digest.readUIntBE(0, 6) / 2 ** 48 < validationFraction;
}
