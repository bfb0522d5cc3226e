/**
 * What a reward function returned, as scores; or what is wrong with it, to be read after "The reward".
 *
 * @param rows how many scores there must be
 */
export function checkScores(
  returned: unknown,
  rows: number,
): { readonly scores: (number | null)[] } | { readonly fault: string } {
  if (!isList(returned)) return { fault: `returned ${describe(returned)}, where a list of ${rows} numbers is due` };
  if (returned.length !== rows) {
    return { fault: `returned ${returned.length} score${returned.length === 1 ? '' : 's'} for ${rows} rows` };
  }
  const scores = Array.from(returned);
  const wrong = scores.findIndex((score) => score !== null && !(typeof score === 'number' && Number.isFinite(score)));
  if (wrong !== -1) return { fault: `returned ${describe(scores[wrong])} for row ${wrong} of ${rows}` };
  return { scores: scores as (number | null)[] };
}

const isList = (value: unknown): value is ArrayLike<unknown> =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value);

/** A value in a few words: `NaN`, `"funny"`, `an object`. */
function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object';
  return typeof value === 'function' ? 'a function' : String(value);
}
