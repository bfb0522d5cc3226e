/**
 * Which samples share a pack of at most `capacity` tokens, by best-fit decreasing: the longest first, each into the
 * fullest pack that has room for it, among equally full ones into that which became so first (TRL's `bfd`; Ding et al.,
 * 2024, https://arxiv.org/abs/2404.10830). Samples of equal length keep their order.
 *
 * @returns indices of the samples of each pack
 * @throws RangeError when a sample is longer than a pack
 */
export function packBestFit(lengths: readonly number[], capacity: number): number[][] {
  const packs: number[][] = [];
  /** Packs by the room that is left in them, in the order in which they came to it. */
  const byRoom = Array.from({ length: capacity + 1 }, (): number[][] => []);
  const order = [...lengths.keys()].sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  for (const sample of order) {
    const length = lengths[sample]!;
    if (length > capacity) throw new RangeError(`a sample of ${length} tokens does not fit into a pack of ${capacity}`);
    let room = length;
    while (room < capacity && byRoom[room]!.length === 0) room++;
    let pack = byRoom[room]!.shift();
    if (pack === undefined) packs.push((pack = []));
    pack.push(sample);
    byRoom[room - length]!.push(pack);
  }
  return packs;
}
