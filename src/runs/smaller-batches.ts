import type { Intervention, Manifest } from './manifest.js';

/**
 * A run's manifest with half as many samples at once, and what is recorded and told of it; undefined where nothing is
 * left to halve.
 *
 * @param batchSize samples that go through the model at once, as configured
 * @param what what happened, as the beginning of a sentence
 */
export function halvedBatches(
  manifest: Manifest,
  batchSize: number,
  what: string,
): { manifest: Manifest; intervention: Intervention } | undefined {
  const before = Math.min(batchSize, manifest.microBatch ?? batchSize);
  if (before <= 1) return undefined;
  const microBatch = Math.ceil(before / 2);
  const message = `${what} with ${before} samples at once; going on from the last checkpoint with ${microBatch}, accumulated to the same steps.`;
  const intervention = { step: null, at: new Date().toISOString(), code: 'memory.smaller-batches', message };
  return {
    manifest: { ...manifest, microBatch, interventions: [...manifest.interventions, intervention] },
    intervention,
  };
}
