import { closest, distance } from 'fastest-levenshtein';

/**
 * The candidate that `name` was probably meant to be, or undefined when none is near:
 * at most half of its letters (rounded up) may differ, case aside.
 */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  if (candidates.length === 0) return undefined;
  const lower = name.trim().toLowerCase();
  const best = closest(
    lower,
    candidates.map((candidate) => candidate.toLowerCase()),
  );
  const found = candidates.find((candidate) => candidate.toLowerCase() === best);
  return found !== undefined && distance(lower, best) <= Math.ceil(lower.length / 2) ? found : undefined;
}

/** `Did you mean "x"? ` or nothing: a beginning for the remedy of an error about a name. */
export function didYouMean(name: string, candidates: readonly string[]): string {
  const found = nearest(name, candidates);
  return found === undefined ? '' : `Did you mean "${found}"? `;
}
