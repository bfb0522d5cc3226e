import type { Dim } from '../../graph/dim.js';
import type { Value } from '../../graph/graph.js';
import { gatherRows, mul, scatterAddRows } from '../../ops/build.js';

/** Which completion each of N tokens belongs to. */
export interface Sequences {
  /** The token's completion, int32 (N). */
  readonly of: Value;
  /** 1 / tokens of that completion, (N). */
  readonly share: Value;
  /** Completions. */
  readonly count: Dim;
}

/** The sum over its completion, at each token: (N) → (N). */
export const sequenceSum = (x: Value, { of, count }: Sequences): Value => gatherRows(scatterAddRows(x, of, count), of);

/** The mean over its completion, at each token: (N) → (N). */
export const sequenceMean = (x: Value, sequences: Sequences): Value => sequenceSum(mul(x, sequences.share), sequences);
