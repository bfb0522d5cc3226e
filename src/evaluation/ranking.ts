/** A statistic of rows under non-negative weights, one a row; without weights every row counts once. Null: undefined. */
export type WeightedStatistic = (weights?: ArrayLike<number>) => number | null;

/**
 * Area under the ROC curve: the probability that a random positive scores above a random negative, ties counting half.
 * Null when a class is missing.
 */
export function rocAuc(labels: ArrayLike<number>, scores: ArrayLike<number>): number | null {
  return weightedRocAuc(labels, scores)();
}

/** ROC AUC with the sorting done once, so that a bootstrap pays O(rows) for each resample. */
export function weightedRocAuc(labels: ArrayLike<number>, scores: ArrayLike<number>): WeightedStatistic {
  const groups = tieGroups(scores);
  return (weights) => {
    let positives = 0;
    let negatives = 0;
    let pairsWon = 0;
    for (const group of groups) {
      let groupPositives = 0;
      let groupNegatives = 0;
      for (const row of group) {
        const weight = weights === undefined ? 1 : weights[row]!;
        if (labels[row] === 1) groupPositives += weight;
        else groupNegatives += weight;
      }
      // Positives already seen score higher than this group's negatives.
      pairsWon += groupNegatives * (positives + groupPositives / 2);
      positives += groupPositives;
      negatives += groupNegatives;
    }
    return positives === 0 || negatives === 0 ? null : pairsWon / (positives * negatives);
  };
}

/**
 * Average precision: sum over thresholds, from the highest, of (gain in recall) × precision; tied scores share a
 * threshold. Null when a class is missing.
 */
export function averagePrecision(labels: ArrayLike<number>, scores: ArrayLike<number>): number | null {
  const positives = Array.from(labels).filter((label) => label === 1).length;
  if (positives === 0 || positives === labels.length) return null;
  let seen = 0;
  let hits = 0;
  let sum = 0;
  for (const group of tieGroups(scores)) {
    const groupHits = group.filter((row) => labels[row] === 1).length;
    seen += group.length;
    hits += groupHits;
    sum += groupHits * (hits / seen);
  }
  // Divided once, so that a perfect ranking gives 1 and not a little more.
  return sum / positives;
}

/** Row numbers grouped by equal score, the highest score first. */
function tieGroups(scores: ArrayLike<number>): number[][] {
  const order = Array.from({ length: scores.length }, (_, row) => row).sort((a, b) => scores[b]! - scores[a]!);
  const groups: number[][] = [];
  let last: number | undefined;
  for (const row of order) {
    const score = scores[row]!;
    const group = groups.at(-1);
    if (group !== undefined && score === last) group.push(row);
    else groups.push([row]);
    last = score;
  }
  return groups;
}
