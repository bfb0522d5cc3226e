/** A prompt, and where it stands in the list: more than once where several completions of it are asked for. */
export interface Prompt {
  readonly ids: readonly number[];
  readonly positions: readonly number[];
}

/** Prompts in the order of their first occurrence, equal ones together. */
export class WaitingPrompts {
  readonly #waiting: Prompt[];

  constructor(prompts: readonly (readonly number[])[]) {
    const known = new Map<string, { ids: readonly number[]; positions: number[] }>();
    for (const [position, ids] of prompts.entries()) {
      const name = ids.join(' ');
      const same = known.get(name);
      if (same === undefined) known.set(name, { ids, positions: [position] });
      else same.positions.push(position);
    }
    this.#waiting = [...known.values()].reverse();
  }

  isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Takes the next prompts, as many as have at least so many completions in all. */
  take(completions: number): Prompt[] {
    const taken: Prompt[] = [];
    for (let count = 0; count < completions && !this.isEmpty();) {
      const prompt = this.#waiting.pop()!;
      taken.push(prompt);
      count += prompt.positions.length;
    }
    return taken;
  }
}

/** Splits prompts into batches of similar lengths, each of so many tokens at most when padded, and one prompt at least. */
export function passesOf(prompts: readonly Prompt[], tokens: number): Prompt[][] {
  const passes: Prompt[][] = [];
  for (const prompt of prompts.toSorted((a, b) => a.ids.length - b.ids.length)) {
    const pass = passes.at(-1);
    if (pass !== undefined && (pass.length + 1) * prompt.ids.length <= tokens) pass.push(prompt);
    else passes.push([prompt]);
  }
  return passes;
}
