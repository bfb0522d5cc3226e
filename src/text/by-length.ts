/** What a further part of a batch costs, in tokens that could go through the model instead: its weights are read once more, its gradients added up. */
const PART_COST = 64;

/**
 * Cuts a batch into parts of similar length, each to be padded to its longest sequence: of all ways to cut the sequences
 * in order of length the one that needs the fewest tokens, padding included. The parts' gradients are summed, so the
 * batch stays the one that was drawn.
 *
 * @param lengths of the sequences in tokens
 * @param limit most tokens in one part, padding included; a sequence that is longer is a part alone
 * @param most sequences in one part
 * @returns positions in the batch, part by part, short sequences first
 */
export function partsByLength(lengths: readonly number[], limit: number, most = Infinity): number[][] {
  const sorted = lengths.map((_, position) => position).sort((a, b) => lengths[a]! - lengths[b]! || a - b);
  // best[i]: the cheapest way to cut the i shortest, and where its last part starts.
  const best = [{ cost: 0, start: 0 }];
  for (let end = 1; end <= sorted.length; end++) {
    const longest = lengths[sorted[end - 1]!]!;
    let chosen = { cost: Infinity, start: end - 1 };
    for (let start = end - 1; start >= Math.max(0, end - most); start--) {
      const tokens = (end - start) * longest;
      if (tokens > limit && end - start > 1) break;
      const cost = best[start]!.cost + tokens + PART_COST;
      if (cost < chosen.cost) chosen = { cost, start };
    }
    best.push(chosen);
  }
  const parts: number[][] = [];
  for (let end = sorted.length; end > 0; end = best[end]!.start) parts.unshift(sorted.slice(best[end]!.start, end));
  return parts;
}
