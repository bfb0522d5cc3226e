/** The Unicode code points of a text: what "character" and "length" mean in every figure. */
export function characters(text: string): string[] {
  return Array.from(text);
}
