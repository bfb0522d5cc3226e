import { characters } from './characters.js';

/** Characters of a stretch that counts as copied: longer than most idioms and names. */
export const COPY_LENGTH = 8;

/**
 * Which stretches of characters occur in a set of texts. Each n-gram is kept as a hash of 52 bits in an open-addressing
 * table, some 16 bytes an n-gram; two different ones share a hash with a probability of about n-grams / 2⁵².
 */
export class CopyIndex {
  readonly #table: Float64Array;
  readonly #texts: readonly string[];

  constructor(
    texts: readonly string[],
    readonly n = COPY_LENGTH,
  ) {
    this.#texts = texts;
    const total = texts.reduce((sum, text) => sum + text.length, 0);
    this.#table = new Float64Array(2 ** Math.ceil(Math.log2(2 * total + 2)));
    for (const text of texts) {
      for (const hash of hashes(text, n)) {
        const slot = this.#slotOf(hash);
        this.#table[slot] = hash;
      }
    }
  }

  /**
   * The share of a text's characters that lie in a stretch of n characters which occurs in one of the texts: 1 for a
   * copy. A text shorter than n counts 1 where one of the texts contains it whole, and 0 where it is empty.
   */
  copiedShare(text: string): number {
    const length = characters(text).length;
    if (length === 0) return 0;
    if (length < this.n) return this.#texts.some((each) => each.includes(text)) ? 1 : 0;
    let copied = 0;
    let end = 0;
    hashes(text, this.n).forEach((hash, start) => {
      if (this.#table[this.#slotOf(hash)] !== hash) return;
      copied += start + this.n - Math.max(start, end);
      end = start + this.n;
    });
    return copied / length;
  }

  /** Where a hash stands, or the empty slot where it would. */
  #slotOf(hash: number): number {
    const mask = this.#table.length - 1;
    let slot = (hash % 2 ** 32) & mask;
    while (this.#table[slot] !== 0 && this.#table[slot] !== hash) slot = (slot + 1) & mask;
    return slot;
  }
}

/** A hash above 0 of each n-gram of code points, in order: two multiplicative hashes of 26 bits side by side. */
function hashes(text: string, n: number): number[] {
  const points = characters(text).map((point) => point.codePointAt(0)!);
  return Array.from({ length: Math.max(0, points.length - n + 1) }, (_, start) => {
    let a = 0x811c9dc5;
    let b = 0x9747b28c;
    for (let i = start; i < start + n; i += 1) {
      a = Math.imul(a ^ points[i]!, 0x01000193);
      b = Math.imul(b + points[i]!, 0x85ebca6b) ^ (b >>> 13);
    }
    return 1 + (mix(a) >>> 6) * 2 ** 26 + (mix(b) >>> 6);
  });
}

/** The finaliser of MurmurHash3: every bit of the input moves every bit of the output. */
function mix(hash: number): number {
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
