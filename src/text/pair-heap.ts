/** Two neighbouring tokens and how often they stand so in the training words. */
export interface Pair {
  readonly left: number;
  readonly right: number;
  count: number;
  /** Indices of words that held the pair at some time; a word may be there twice. */
  readonly words: number[];
}

interface Entry {
  readonly pair: Pair;
  readonly count: number;
}

/**
 * The pairs by count, the most frequent first, ties by the smaller ids. Counts may change after a push: an entry that is
 * out of date is put back with the count it has now, and one whose pair is gone (count 0) is dropped. A pair whose count
 * grew must be pushed again.
 */
export class PairHeap {
  readonly #entries: Entry[] = [];

  push(pair: Pair): void {
    const entries = this.#entries;
    const entry = { pair, count: pair.count };
    let at = entries.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!comesBefore(entry, entries[parent]!)) break;
      entries[at] = entries[parent]!;
      at = parent;
    }
    entries[at] = entry;
  }

  /** Takes out the most frequent pair. */
  pop(): Pair | undefined {
    for (let top = this.#popEntry(); top !== undefined; top = this.#popEntry()) {
      if (top.count === top.pair.count) return top.pair;
      if (top.pair.count > 0) this.push(top.pair);
    }
    return undefined;
  }

  #popEntry(): Entry | undefined {
    const entries = this.#entries;
    const top = entries[0];
    const last = entries.pop();
    if (top === undefined || last === undefined || entries.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= entries.length) break;
      if (child + 1 < entries.length && comesBefore(entries[child + 1]!, entries[child]!)) child++;
      if (!comesBefore(entries[child]!, last)) break;
      entries[at] = entries[child]!;
      at = child;
    }
    entries[at] = last;
    return top;
  }
}

function comesBefore(a: Entry, b: Entry): boolean {
  if (a.count !== b.count) return a.count > b.count;
  if (a.pair.left !== b.pair.left) return a.pair.left < b.pair.left;
  return a.pair.right < b.pair.right;
}
