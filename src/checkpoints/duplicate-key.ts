/**
 * The first key that one object of a valid JSON text holds twice, or undefined. `JSON.parse` keeps the last of them
 * silently, which would let a file say two things at once.
 */
export function duplicateKey(json: string): string | undefined {
  // One set of keys for each open object; undefined for an open array.
  const open: (Set<string> | undefined)[] = [];
  let latest = '';
  for (let at = 0; at < json.length; at++) {
    const character = json[at];
    if (character === '{') open.push(new Set());
    else if (character === '[') open.push(undefined);
    else if (character === '}' || character === ']') open.pop();
    else if (character === '"') {
      const end = endOfString(json, at);
      latest = json.slice(at, end + 1);
      at = end;
    } else if (character === ':') {
      const keys = open.at(-1);
      const key = JSON.parse(latest) as string;
      if (keys?.has(key) === true) return key;
      keys?.add(key);
    }
  }
  return undefined;
}

/** Index of the quote that closes the string opened at `start`. */
function endOfString(json: string, start: number): number {
  let at = start + 1;
  while (json[at] !== '"') at += json[at] === '\\' ? 2 : 1;
  return at;
}
