import { UserError } from '../errors.js';
import { splitFolder, type DataFileName, type DataFolder, type DataSplit, type TrainFileName } from './folder.js';
import { completionOf, headlineOf, placeOf, type Row } from './row.js';
import { normalise, type SplitOptions } from './split.js';
import { checkTemplatesFor, promptsOf, type Templates } from './templates.js';

/** Of the completions' lengths, in characters (code points). */
export interface LengthStatistics {
  readonly min: number;
  readonly median: number;
  readonly mean: number;
  /** 95 % of the texts are at most this long. */
  readonly p95: number;
  readonly max: number;
}

export interface LabelSummary {
  /** Rows with label 1 and with label 0. */
  readonly positive: number;
  readonly negative: number;
  /** What a scorer that always answers "humorous" gets right. */
  readonly positiveShare: number;
  /** Lengths apart: where they differ, length alone predicts the label. */
  readonly positiveLength: LengthStatistics | undefined;
  readonly negativeLength: LengthStatistics | undefined;
  /** Headlines that stand in rows of both labels. */
  readonly sharedHeadlines: number;
}

export interface FileSummary {
  readonly name: DataFileName;
  readonly file: string;
  readonly rows: number;
  /** Prompts the templates make of them. */
  readonly prompts: number;
  readonly headlines: number;
  /** Rows whose completion, headline, or both, an earlier row had (case, spaces and punctuation aside). */
  readonly duplicates: { readonly completion: number; readonly headline: number; readonly both: number };
  readonly length: LengthStatistics;
  readonly labels: LabelSummary | undefined;
  /** Rows with two words of which one does not occur in the completion; the first of them as `file:line`. */
  readonly wordsNotInCompletion: { readonly rows: number; readonly examples: readonly string[] };
  /** Sizes of the split; absent for the test file. */
  readonly split: { readonly train: number; readonly validation: number; readonly dropped: number } | undefined;
}

export interface DataSummary {
  readonly dir: string;
  readonly files: readonly FileSummary[];
  /** Rows of the reward model's training file with label 1 whose completion is also an SFT completion. */
  readonly positivesSharedWithSft: number | undefined;
  /** Test rows whose headline or completion also occurs in a training file; such training rows are dropped. */
  readonly testRowsSeenInTraining: number | undefined;
}

const EXAMPLES = 5;

/**
 * Describes the data of a folder. It prints nothing and changes nothing.
 *
 * @throws UserError where a template does not fit a file, or a file leaves no row to train on.
 */
export function checkData(folder: DataFolder, templates: Templates, options: SplitOptions): DataSummary {
  const split = splitFolder(folder, options);
  const files = Object.entries(folder.files).map(([name, { file, columns, rows }]): FileSummary => {
    checkTemplatesFor(templates, { columns, rows, file });
    return {
      name: name as DataFileName,
      file,
      rows: rows.length,
      prompts: rows.reduce((sum, row) => sum + promptsOf(row, templates).length, 0),
      headlines: headlinesOf(rows).size,
      duplicates: countDuplicates(rows),
      length: lengthsOf(rows)!,
      labels: summariseLabels(rows),
      wordsNotInCompletion: findMissingWords(rows),
      split: splitSizes(split, name as DataFileName, file),
    };
  });
  const { sft_train, rm_train, rm_test } = folder.files;
  const trained = [...(sft_train?.rows ?? []), ...(rm_train?.rows ?? [])];
  const positives = rm_train?.rows.filter(({ label }) => label === 1);
  return {
    dir: folder.dir,
    files,
    positivesSharedWithSft: sft_train && positives && countShared(positives, sft_train.rows, [completionOf]),
    testRowsSeenInTraining: rm_test && countShared(rm_test.rows, trained, [completionOf, headlineOf]),
  };
}

type TextOf = (row: Row) => string | undefined;

function countShared(rows: readonly Row[], others: readonly Row[], texts: readonly TextOf[]): number {
  const seen = texts.map((text) => new Set(others.map(text).map(keyOf)));
  return rows.filter((row) =>
    texts.some((text, i) => {
      const key = keyOf(text(row));
      return key !== undefined && seen[i]!.has(key);
    }),
  ).length;
}

function keyOf(text: string | undefined): string | undefined {
  return text === undefined ? undefined : normalise(text);
}

function headlinesOf(rows: readonly Row[]): Set<string> {
  return new Set(
    rows
      .map(headlineOf)
      .filter((headline) => headline !== undefined)
      .map(normalise),
  );
}

function countDuplicates(rows: readonly Row[]): FileSummary['duplicates'] {
  const repeated = (keyed: TextOf): number => {
    const keys = rows.map(keyed).filter((key) => key !== undefined);
    return keys.length - new Set(keys).size;
  };
  const headline: TextOf = (row) => keyOf(headlineOf(row));
  const completion: TextOf = (row) => keyOf(completionOf(row));
  return {
    completion: repeated(completion),
    headline: repeated(headline),
    both: repeated((row) => `${headline(row) ?? ''}\n${completion(row) ?? ''}`),
  };
}

function lengthsOf(rows: readonly Row[]): LengthStatistics | undefined {
  if (rows.length === 0) return undefined;
  const lengths = rows.map((row) => Array.from(completionOf(row)).length).sort((a, b) => a - b);
  // Nearest rank: the smallest length that at least this share of the texts does not exceed.
  const atShare = (share: number): number => lengths[Math.max(0, Math.ceil(share * lengths.length) - 1)]!;
  return {
    min: lengths[0]!,
    median: atShare(0.5),
    mean: lengths.reduce((sum, length) => sum + length, 0) / lengths.length,
    p95: atShare(0.95),
    max: lengths.at(-1)!,
  };
}

function summariseLabels(rows: readonly Row[]): LabelSummary | undefined {
  const positives = rows.filter(({ label }) => label === 1);
  const negatives = rows.filter(({ label }) => label === 0);
  const labelled = positives.length + negatives.length;
  if (labelled === 0) return undefined;
  const inNegatives = headlinesOf(negatives);
  return {
    positive: positives.length,
    negative: negatives.length,
    positiveShare: positives.length / labelled,
    positiveLength: lengthsOf(positives),
    negativeLength: lengthsOf(negatives),
    sharedHeadlines: [...headlinesOf(positives)].filter((headline) => inNegatives.has(headline)).length,
  };
}

function findMissingWords(rows: readonly Row[]): FileSummary['wordsNotInCompletion'] {
  const found = rows.filter((row) => {
    const completion = completionOf(row);
    return [row.fields['word1'], row.fields['word2']].some((word) => word !== undefined && !completion.includes(word));
  });
  return { rows: found.length, examples: found.slice(0, EXAMPLES).map(placeOf) };
}

function splitSizes(split: DataSplit, name: DataFileName, file: string): FileSummary['split'] {
  if (name === 'rm_test') return undefined;
  const { train, validation, dropped } = split.files[name satisfies TrainFileName]!;
  if (train.length === 0) {
    throw new UserError({
      code: 'data.nothing-to-train',
      message: `The split leaves no row to train on (${validation.length} validate, ${dropped.length} would leak).`,
      where: file,
      fix: 'Lower data.validationFraction, or add rows with other headlines.',
    });
  }
  return { train: train.length, validation: validation.length, dropped: dropped.length };
}
