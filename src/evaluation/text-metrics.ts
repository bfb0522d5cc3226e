import { stream } from '../random.js';
import { characters } from '../text/characters.js';
import { CopyIndex } from '../text/copy-index.js';
import { isGarbage } from '../text/garbage.js';

/** Statistics of generated texts. A length is in Unicode code points; a share is in [0, 1]. */
export interface TextSummary {
  texts: number;
  meanLength: number;
  distinct1: number;
  distinct2: number;
  distinct3: number;
  /** Mean Jaccard similarity of pairs; null with fewer than two texts. */
  selfSimilarity: number | null;
  garbageShare: number;
  /** Share of texts with both words of their prompt; null where no prompt gave words. */
  bothWordsShare: number | null;
  /** Mean over texts of {@link copiedShares}; null where no training texts were given. */
  copiedShare: number | null;
}

/** One generated text, with the words its prompt asked for, if any. */
export interface GeneratedText {
  text: string;
  words?: readonly string[] | undefined;
}

/** All text statistics at once; `training` are the texts that copying is measured against. */
export function summarizeTexts(
  generated: readonly GeneratedText[],
  { training, seed = 0 }: { training?: readonly string[] | undefined; seed?: number } = {},
): TextSummary {
  const texts = generated.map(({ text }) => text);
  return {
    texts: texts.length,
    meanLength: meanLength(texts),
    distinct1: distinctN(texts, 1),
    distinct2: distinctN(texts, 2),
    distinct3: distinctN(texts, 3),
    selfSimilarity: selfSimilarity(texts, { seed }),
    garbageShare: mean(texts.map((text) => (isGarbage(text) ? 1 : 0))),
    bothWordsShare: bothWordsShare(generated),
    copiedShare: training === undefined ? null : mean(copiedShares(texts, training)),
  };
}

/**
 * Different character n-grams / all character n-grams over the corpus (Li et al. 2016, on code points, spaces
 * included); 0 when no text is n long.
 */
export function distinctN(texts: readonly string[], n: number): number {
  const different = new Set<string>();
  let all = 0;
  for (const text of texts) {
    for (const gram of ngrams(text, n)) {
      different.add(gram);
      all += 1;
    }
  }
  return all === 0 ? 0 : different.size / all;
}

/** Mean length in code points; 0 without texts. */
export function meanLength(texts: readonly string[]): number {
  return mean(texts.map((text) => characters(text).length));
}

/** Share of the texts whose prompt gave words that contain every one of them; null when no prompt gave any. */
export function bothWordsShare(generated: readonly GeneratedText[]): number | null {
  const asked = generated.filter(({ words }) => words !== undefined && words.length > 0);
  if (asked.length === 0) return null;
  return mean(asked.map(({ text, words }) => (words!.every((word) => text.includes(word)) ? 1 : 0)));
}

/**
 * Mean Jaccard similarity of the character 3-gram sets over all pairs of a seeded sample; near 1 when a model repeats
 * itself. Null with fewer than two texts. Two texts without any 3-gram count as 1 when equal, else 0.
 */
export function selfSimilarity(
  texts: readonly string[],
  { sampleSize = 200, seed = 0 }: { sampleSize?: number; seed?: number } = {},
): number | null {
  if (texts.length < 2) return null;
  const order = stream(seed, 'self-similarity').shuffle(texts.length);
  const sample = Array.from(order.subarray(0, Math.max(2, sampleSize)), (index) => ({
    text: texts[index]!,
    grams: new Set(ngrams(texts[index]!, 3)),
  }));
  let sum = 0;
  let pairs = 0;
  sample.forEach((a, index) => {
    for (const b of sample.slice(index + 1)) {
      sum += a.grams.size + b.grams.size === 0 ? Number(a.text === b.text) : jaccard(a.grams, b.grams);
      pairs += 1;
    }
  });
  return sum / pairs;
}

/**
 * For each text the share of its characters that lie in an n-gram (8 by default) occurring in a training text: see
 * {@link CopyIndex}.
 */
export function copiedShares(texts: readonly string[], training: readonly string[], n?: number): number[] {
  const index = new CopyIndex(training, n);
  return texts.map((text) => index.copiedShare(text));
}

/** Character n-grams in code points, in order. */
function ngrams(text: string, n: number): string[] {
  const points = characters(text);
  return Array.from({ length: Math.max(0, points.length - n + 1) }, (_, start) =>
    points.slice(start, start + n).join(''),
  );
}

function jaccard(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let shared = 0;
  for (const gram of a) if (b.has(gram)) shared += 1;
  return shared / (a.size + b.size - shared);
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) sum += values[i]!;
  return values.length === 0 ? 0 : sum / values.length;
}
