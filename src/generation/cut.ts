/** The lowest of the selected values, and how many of the values equal to it are selected. */
export interface Cut {
  value: number;
  ties: number;
}

/** The k-th largest of the first `count` values, 1 ≤ k ≤ count; reorders them. */
export function kthLargest(values: Float64Array, count: number, k: number, cut: Cut): number {
  quickselect(values, count, k, false, cut);
  return cut.value;
}

/**
 * Finds the fewest of the first `count` values, largest first, whose sum reaches `target`; all when none does. The
 * values are positive, and are reordered; `target` is above 0.
 */
export function cutAtSum(values: Float64Array, count: number, target: number, cut: Cut): void {
  quickselect(values, count, target, true, cut);
}

/** Hoare's quickselect on the running sum of the values, or of ones; linear in `count` on average. */
function quickselect(values: Float64Array, count: number, target: number, summed: boolean, cut: Cut): void {
  let start = 0;
  let end = count;
  // Sum over the values that are larger than those in [start, end).
  let sum = 0;
  for (;;) {
    const pivot = median(values[start]!, values[(start + end) >>> 1]!, values[end - 1]!);
    // Reorder to: larger values in [start, equal), the pivot's equals in [equal, smaller), smaller ones in [smaller, end).
    let equal = start;
    let smaller = end;
    let larger = 0;
    for (let index = start; index < smaller;) {
      const value = values[index]!;
      if (value > pivot) {
        values[index] = values[equal]!;
        values[equal] = value;
        larger += summed ? value : 1;
        equal += 1;
        index += 1;
      } else if (value < pivot) {
        smaller -= 1;
        values[index] = values[smaller]!;
        values[smaller] = value;
      } else {
        index += 1;
      }
    }
    if (sum + larger >= target) {
      end = equal;
      continue;
    }
    sum += larger;
    let ties = 0;
    while (ties < smaller - equal && sum < target) {
      sum += summed ? pivot : 1;
      ties += 1;
    }
    if (sum >= target || smaller === end) {
      cut.value = pivot;
      cut.ties = ties;
      return;
    }
    start = smaller;
  }
}

const median = (a: number, b: number, c: number): number => Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
