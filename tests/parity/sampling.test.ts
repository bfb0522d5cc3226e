import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { readHeader, readTensor } from '../../src/checkpoints/safetensors.js';
import { filteredProbabilities } from '../../src/generation/filtered-probabilities.js';
import { SamplerScratch, selectCandidates } from '../../src/generation/sampler.js';
import type { SamplingSettings } from '../../src/generation/sampling-settings.js';

const folder = new URL('../fixtures/golden/sampling/', import.meta.url);
const recorded = z
  .object({
    tie_row: z.int(),
    combos: z.array(
      z.object({
        index: z.int(),
        temperature: z.number(),
        top_k: z.int(),
        top_p: z.number(),
        min_p: z.number().nullable(),
        repetition_penalty: z.number(),
        order: z.array(z.string()),
        kept: z.array(z.int()),
      }),
    ),
  })
  .parse(JSON.parse(readFileSync(new URL('combos.json', folder), 'utf8')));
type Combination = (typeof recorded.combos)[number];

/** Tensors of two dimensions, as rows. */
const rows = new Map<string, (Float32Array | BigInt64Array)[]>();

beforeAll(async () => {
  const header = await readHeader(fileURLToPath(new URL('sampling.safetensors', folder)));
  for (const info of header.tensors.values()) {
    const data = await readTensor(info);
    if (!(data instanceof Float32Array || data instanceof BigInt64Array))
      throw new Error(`${info.name}: ${info.dtype}`);
    const [count = 0, length = 0] = info.shape;
    rows.set(
      info.name,
      Array.from({ length: count }, (_, row) => data.subarray(row * length, (row + 1) * length)),
    );
  }
});

const floats = (name: string): Float32Array[] => rows.get(name)!.filter((row) => row instanceof Float32Array);
const historyOf = (row: number): number[] => Array.from(rows.get('history')![row]!, Number);

const settingsOf = (combination: Combination): SamplingSettings => ({
  temperature: combination.temperature,
  topK: combination.top_k,
  topP: combination.top_p,
  minP: combination.min_p ?? 0,
  repetitionPenalty: combination.repetition_penalty,
});

function candidateProbabilities(logits: Float32Array, settings: SamplingSettings, history: number[]): Float64Array {
  const scratch = new SamplerScratch(logits.length);
  const count = selectCandidates(logits, settings, scratch, history);
  const probabilities = new Float64Array(logits.length);
  for (let i = 0; i < count; i += 1) probabilities[scratch.tokens[i]!] = scratch.work[i]! / scratch.mass;
  return probabilities;
}

const keptIn = (probabilities: Float32Array | Float64Array): number[] =>
  [...probabilities.keys()].filter((token) => probabilities[token]! > 0);

describe.each([
  ['filteredProbabilities', filteredProbabilities],
  ['selectCandidates', candidateProbabilities],
])('%s, as transformers', (_, probabilitiesOf) => {
  it.each(recorded.combos)(
    'T $temperature, top-k $top_k, top-p $top_p, min-p $min_p, penalty $repetition_penalty',
    (combination) => {
      const logits = floats('logits');
      const expectedRows = floats(`probs.${combination.index}`);
      expect(expectedRows.length).toBe(logits.length);
      for (const [row, expected] of expectedRows.entries()) {
        const found = probabilitiesOf(logits[row]!, settingsOf(combination), historyOf(row));
        expect(keptIn(found).length).toBe(combination.kept[row]);
        // Which of several equal tokens at the border of top-p are kept depends on the sort that was recorded.
        const anyOfEqual = row === recorded.tie_row && combination.top_p < 1;
        if (!anyOfEqual) expect(keptIn(found)).toEqual(keptIn(expected));
        const compared = anyOfEqual ? [found.toSorted(), expected.toSorted()] : [found, expected];
        const differences = Array.from(compared[0]!, (value, index) => Math.abs(value - compared[1]![index]!));
        expect(Math.max(...differences)).toBeLessThanOrEqual(1e-6);
      }
    },
  );
});
