import type { Metrics } from '../../training/loop.js';

/** Every so many completions one is measured again. */
const MEASURED = 8;

/** Log-probabilities of completions, one list each; natural logarithms at the rollout's temperature. */
type LogProbs = readonly (readonly number[])[];

export interface OldLogProbs {
  /** By the policy that the loss starts from. */
  readonly policy: LogProbs;
  /** By the sampler; only where these are other numbers. */
  readonly sampler?: LogProbs;
  readonly metrics: Metrics;
}

/**
 * The log-probabilities that the loss takes as old. The sampler knows them already: where it computes what the policy
 * computes, its numbers differ by rounding alone and are taken as they are. That is not believed but measured, on
 * some completions of each rollout; beyond the tolerance all are computed anew, and the loss gets both, so that it can
 * correct for the difference.
 *
 * @param measure log-probabilities of some completions by the policy, without a cache
 * @param tolerance root mean square of the differences, which a few tokens that are far off exceed as well as many that are not
 */
export async function oldLogProbs(
  sampler: LogProbs,
  measure: (completions: readonly number[]) => Promise<readonly Float32Array[]>,
  tolerance: number,
): Promise<OldLogProbs> {
  const all = [...sampler.keys()];
  const some = tolerance === 0 ? all : all.filter((i) => i % MEASURED === 0);
  const again = (await measure(some)).map((row) => [...row]);
  const differences = some.flatMap((i, k) => again[k]!.map((value, t) => Math.abs(value - sampler[i]![t]!)));
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(values.length, 1);
  // Not a number where a difference is not, and then within no tolerance.
  if (tolerance > 0 && Math.sqrt(mean(differences.map((each) => each ** 2))) <= tolerance) {
    return {
      policy: sampler,
      metrics: {
        'sampling/sampling_logp_difference/mean': mean(differences),
        'sampling/sampling_logp_difference/max': differences.reduce((a, b) => Math.max(a, b), 0),
      },
    };
  }
  const missing = all.filter((i) => !some.includes(i));
  const measured = new Map(some.map((i, k) => [i, again[k]!]));
  const rest = missing.length === 0 ? [] : await measure(missing);
  for (const [k, i] of missing.entries()) measured.set(i, [...rest[k]!]);
  return { policy: all.map((i) => measured.get(i)!), sampler, metrics: {} };
}
