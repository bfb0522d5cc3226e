import { PairHeap, type Pair } from './pair-heap.js';

export interface LearnedMerges {
  /** Tokens by id: the alphabet, then what the merges make. */
  readonly tokens: readonly string[];
  /** In the order in which they apply. */
  readonly merges: readonly (readonly [string, string])[];
}

/**
 * Learns byte-pair merges: again and again the most frequent pair of neighbours becomes one token.
 *
 * Counts are kept up to date from merge to merge, so one costs as much as the words that hold the pair are long.
 * Reference: Sennrich et al. 2016, Neural Machine Translation of Rare Words with Subword Units.
 *
 * @param wordCounts Word → how often it occurs; every character of it is in the alphabet.
 * @param size How many tokens to make; fewer result when no pair occurs `minCount` times any more.
 */
export function learnMerges(
  wordCounts: ReadonlyMap<string, number>,
  alphabet: readonly string[],
  size: number,
  minCount: number,
): LearnedMerges {
  const tokens = [...alphabet];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const words = Array.from(wordCounts.keys(), (word) => Array.from(word, (character) => ids.get(character)!));
  const counts = [...wordCounts.values()];
  const merges: [string, string][] = [];
  const done = new Set<number>();
  const pairs = new Pairs();
  words.forEach((word, index) => {
    for (let i = 1; i < word.length; i++) pairs.add(word[i - 1]!, word[i]!, counts[index]!, index);
  });
  pairs.queueGrown();

  while (tokens.length < size) {
    const pair = pairs.takeMostFrequent();
    if (pair === undefined || pair.count < minCount) break;
    const text = tokens[pair.left]! + tokens[pair.right]!;
    // Two pairs can make the same token, and a pair can come back when such a token turns up again.
    let merged = ids.get(text);
    if (merged === undefined) {
      merged = tokens.push(text) - 1;
      ids.set(text, merged);
    }
    const key = keyOf(pair.left, pair.right);
    if (!done.has(key)) merges.push([tokens[pair.left]!, tokens[pair.right]!]);
    done.add(key);
    for (const index of pair.words) words[index] = mergeIn(words[index]!, index, pair, merged, counts[index]!, pairs);
    pairs.remove(pair);
    pairs.queueGrown();
  }
  return { tokens, merges };
}

/** The word with the pair replaced by `merged`; the pairs around each replacement are counted anew. */
function mergeIn(word: number[], index: number, pair: Pair, merged: number, count: number, pairs: Pairs): number[] {
  const { left, right } = pair;
  const result: number[] = [];
  for (let i = 0; i < word.length; i++) {
    const token = word[i]!;
    if (token !== left || word[i + 1] !== right) {
      result.push(token);
      continue;
    }
    const before = result.at(-1);
    const after = word[i + 2];
    if (before !== undefined) {
      pairs.add(before, left, -count, index);
      pairs.add(before, merged, count, index);
    }
    if (after !== undefined) {
      pairs.add(right, after, -count, index);
      pairs.add(merged, after, count, index);
    }
    result.push(merged);
    i++;
  }
  return result;
}

/** All pairs that occur, with their counts. */
class Pairs {
  readonly #byKey = new Map<number, Pair>();
  readonly #heap = new PairHeap();
  readonly #grown = new Set<Pair>();

  add(left: number, right: number, count: number, word: number): void {
    const key = keyOf(left, right);
    let pair = this.#byKey.get(key);
    if (pair === undefined) {
      pair = { left, right, count: 0, words: [] };
      this.#byKey.set(key, pair);
    }
    pair.count += count;
    if (count > 0) {
      if (pair.words.at(-1) !== word) pair.words.push(word);
      this.#grown.add(pair);
    }
  }

  queueGrown(): void {
    for (const pair of this.#grown) if (pair.count > 0) this.#heap.push(pair);
    this.#grown.clear();
  }

  takeMostFrequent(): Pair | undefined {
    return this.#heap.pop();
  }

  remove(pair: Pair): void {
    pair.count = 0;
    this.#byKey.delete(keyOf(pair.left, pair.right));
  }
}

/** Unique and exact for ids below 2^21. */
function keyOf(left: number, right: number): number {
  return left * 2 ** 21 + right;
}
