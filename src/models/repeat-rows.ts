import type { Value } from '../graph/graph.js';
import { concat } from '../ops/build.js';

/** Inputs with a batch axis, each `copies` times one after the other along it. */
export const repeatRows = <Inputs extends object>(inputs: { [Name in keyof Inputs]: Value }, copies: number) =>
  (copies === 1
    ? inputs
    : Object.fromEntries(
        Object.entries<Value>(inputs).map(([name, value]) => [name, concat(Array<Value>(copies).fill(value), 0)]),
      )) as { [Name in keyof Inputs]: Value };
