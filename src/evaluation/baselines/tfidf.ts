import type { SparseMatrix } from './sparse.js';
import { Pacer } from './pacer.js';

export interface TfidfOptions {
  /** Shortest and longest n-gram in code points; default 1 to 4. */
  minN?: number;
  maxN?: number;
  /** An n-gram of fewer training texts than this is left out; default 2. */
  minDocumentFrequency?: number;
  signal?: AbortSignal | undefined;
}

/** A fitted vocabulary of character n-grams. */
export interface TfidfModel {
  minN: number;
  maxN: number;
  /** n-gram → column. */
  vocabulary: ReadonlyMap<string, number>;
  /** Inverse document frequency of each column. */
  idf: Float64Array;
}

/**
 * Fits character n-gram TF-IDF as scikit-learn's `TfidfVectorizer(analyzer="char", min_df=2)`: lower case, runs of
 * white space as one space, idf = ln((1 + texts) / (1 + document frequency)) + 1. Columns stand in order of first
 * occurrence.
 */
export async function fitTfidf(
  texts: readonly string[],
  { minN = 1, maxN = 4, minDocumentFrequency = 2, signal }: TfidfOptions = {},
): Promise<TfidfModel> {
  const pacer = new Pacer(signal);
  const ids = new Map<string, number>();
  const frequency: number[] = [];
  const lastText: number[] = [];
  for (const [index, text] of texts.entries()) {
    await pacer.breathe();
    forEachNgram(text, minN, maxN, (gram) => {
      const id = ids.get(gram);
      if (id === undefined) {
        ids.set(gram, frequency.length);
        frequency.push(1);
        lastText.push(index);
      } else if (lastText[id] !== index) {
        frequency[id]! += 1;
        lastText[id] = index;
      }
    });
  }
  const vocabulary = new Map<string, number>();
  const idf: number[] = [];
  for (const [gram, id] of ids) {
    const documents = frequency[id]!;
    if (documents < minDocumentFrequency) continue;
    vocabulary.set(gram, idf.length);
    idf.push(Math.log((1 + texts.length) / (1 + documents)) + 1);
  }
  return { minN, maxN, vocabulary, idf: Float64Array.from(idf) };
}

/**
 * Rows of count × idf, scaled to Euclidean length 1 (a text without a known n-gram stays 0).
 * out (texts, vocabulary)
 */
export async function transformTfidf(
  model: TfidfModel,
  texts: readonly string[],
  signal?: AbortSignal,
): Promise<SparseMatrix> {
  const pacer = new Pacer(signal);
  const columns: number[] = [];
  const values: number[] = [];
  const rowStart = new Int32Array(texts.length + 1);
  for (const [row, text] of texts.entries()) {
    await pacer.breathe();
    const counts = new Map<number, number>();
    forEachNgram(text, model.minN, model.maxN, (gram) => {
      const column = model.vocabulary.get(gram);
      if (column !== undefined) counts.set(column, (counts.get(column) ?? 0) + 1);
    });
    const weights = [...counts].map(([column, count]) => count * model.idf[column]!);
    const norm = Math.sqrt(weights.reduce((sum, weight) => sum + weight * weight, 0));
    for (const column of counts.keys()) columns.push(column);
    for (const weight of weights) values.push(weight / norm);
    rowStart[row + 1] = columns.length;
  }
  return {
    rows: texts.length,
    columns: model.vocabulary.size,
    rowStart,
    column: Int32Array.from(columns),
    value: Float64Array.from(values),
  };
}

function forEachNgram(text: string, minN: number, maxN: number, visit: (gram: string) => void): void {
  const prepared = text.toLowerCase().replace(/\s\s+/gu, ' ');
  const starts: number[] = [];
  let offset = 0;
  for (const character of prepared) {
    starts.push(offset);
    offset += character.length;
  }
  starts.push(offset);
  for (let n = minN; n <= maxN; n += 1) {
    for (let i = 0; i + n < starts.length; i += 1) visit(prepared.slice(starts[i], starts[i + n]));
  }
}
