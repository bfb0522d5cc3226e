import { distance } from 'fastest-levenshtein';

/** The candidate with the fewest letters to change, case aside, the first of equals; undefined without candidates. */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  let best: { candidate: string; changes: number } | undefined;
  for (const candidate of candidates) {
    const changes = distance(name.toLowerCase(), candidate.toLowerCase());
    if (best === undefined || changes < best.changes) best = { candidate, changes };
  }
  return best?.candidate;
}

/** Whether so few letters differ that the one was probably meant to be the other. */
function isNear(name: string, candidate: string): boolean {
  return (
    distance(name.toLowerCase(), candidate.toLowerCase()) <= Math.ceil(Math.min(name.length, candidate.length) / 3)
  );
}

/**
 * The known key that an unknown one was probably meant to be: a near one of the same section, else one of the same name
 * elsewhere, else the nearest of all.
 */
export function nearestKey(path: readonly string[], known: readonly string[]): string | undefined {
  const last = path.at(-1) ?? '';
  const section = path
    .slice(0, -1)
    .map((name) => `${name}.`)
    .join('');
  const siblings = known.filter((key) => key.startsWith(section) && !key.slice(section.length).includes('.'));
  const sibling = nearest(section + last, siblings);
  if (sibling !== undefined && isNear(last, sibling.slice(section.length))) return sibling;
  const lastOf = (key: string): string => key.split('.').at(-1) ?? '';
  const name = nearest(last, known.map(lastOf));
  if (name !== undefined && isNear(last, name)) return known.find((key) => lastOf(key) === name);
  return sibling ?? nearest(path.join('.'), known);
}
