import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { wrap } from '../graph/tensor.js';
import { mul } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { stream } from '../random.js';
import { Runtime, type DeviceTensor, type Program } from '../runtime/runtime.js';
import { blockLength, outputBlockSums } from './block-sums.js';
import { filteredProbabilities } from './filtered-probabilities.js';
import { unfiltered, type SamplingSettings } from './sampling-settings.js';
import { TokenDrawer, type DrawnToken } from './token-drawer.js';

const ROWS = 3;
/** Five blocks. */
const VOCABULARY = 320;
const DRAWS = 15_000;

const runtime = new Runtime({ threads: 1 });
let program: Program;
let probabilities: DeviceTensor;
beforeAll(async () => {
  const graph = newGraph();
  const logits = graph.input('logits', 'float32', ['B', VOCABULARY]);
  outputBlockSums(mul(logits, graph.input('inverse_temperature', 'float32', [])));
  program = await runtime.compile(graph);
  probabilities = await runtime.allocate('float32', [ROWS, VOCABULARY]);
});
afterAll(() => runtime.close());

/** Rows of a peaked, a middling and a flat distribution; some tokens of the last are equal. */
function logitRows(): Float32Array[] {
  const random = stream(9);
  return [4, 2, 0.3].map((spread) => {
    const row = Float32Array.from({ length: VOCABULARY }, () => spread * random.normal());
    return spread < 1 ? row.map((value) => Math.round(10 * value) / 10) : row;
  });
}

async function draw(rows: readonly Float32Array[], settings: SamplingSettings, count: number): Promise<DrawnToken[][]> {
  const drawer = new TokenDrawer(VOCABULARY);
  const data = new Float32Array(rows.length * VOCABULARY);
  for (const [i, row] of rows.entries()) data.set(row, i * VOCABULARY);
  const feeds = { logits: wrap('float32', [rows.length, VOCABULARY], data), ...drawer.feeds(settings) };
  const outputs = await program.run(feeds, { probabilities: probabilities.rows(rows.length) });
  const random = stream(1, 'draws');
  const draws = rows.flatMap((_, row) => Array.from({ length: count }, () => ({ row, random })));
  const drawn = await drawer.draw(draws, outputs, probabilities, settings);
  return rows.map((_, row) => drawn.slice(row * count, (row + 1) * count));
}

describe('TokenDrawer', () => {
  it.each([
    ['no filter', { ...unfiltered, temperature: 0.8 }],
    ['top-p', { ...unfiltered, temperature: 0.8, topP: 0.95 }],
    ['a small top-p', { ...unfiltered, topP: 0.1 }],
    ['top-k', { ...unfiltered, temperature: 1.2, topK: 50 }],
    ['top-k and top-p', { ...unfiltered, temperature: 1.2, topK: 40, topP: 0.9 }],
    ['min-p', { ...unfiltered, minP: 0.1 }],
    ['top-p and min-p', { ...unfiltered, topP: 0.8, minP: 0.3 }],
  ])('draws each token with %s as often as its probability says, and says its log-probability', async (_, settings) => {
    const rows = logitRows();
    for (const [row, drawn] of (await draw(rows, settings, DRAWS)).entries()) {
      const expected = filteredProbabilities(rows[row]!, settings);
      const whole = filteredProbabilities(rows[row]!, { ...unfiltered, temperature: settings.temperature });
      const counts = new Float64Array(VOCABULARY);
      for (const { token } of drawn) counts[token]!++;
      const differences = drawn.map(({ token, logProb }) => Math.abs(logProb - Math.log(whole[token]!)));
      expect(Math.max(...differences)).toBeLessThan(1e-5);
      let [chiSquare, kept, rare, rareCount] = [0, 0, 0, 0];
      for (const [token, probability] of expected.entries()) {
        if (probability === 0) expect(counts[token]).toBe(0);
        else if (DRAWS * probability < 5) [rare, rareCount] = [rare + DRAWS * probability, rareCount + counts[token]!];
        else
          [chiSquare, kept] = [
            chiSquare + (counts[token]! - DRAWS * probability) ** 2 / (DRAWS * probability),
            kept + 1,
          ];
      }
      // χ² has mean n and variance 2n for n degrees of freedom; rare tokens are counted together.
      expect(chiSquare).toBeLessThan(kept + 5 * Math.sqrt(2 * kept) + 5);
      expect(Math.abs(rareCount - rare)).toBeLessThan(5 * Math.sqrt(rare) + 5);
    }
  });

  it('takes the first of the likeliest tokens at temperature 0, without a random number', async () => {
    const rows = [new Float32Array(VOCABULARY).fill(-2), new Float32Array(VOCABULARY)];
    rows[0]!.set([7, 7], 201);
    const drawn = await draw(rows, { ...unfiltered, temperature: 0 }, 1);
    expect(drawn.map(([first]) => first!.token)).toEqual([201, 0]);
    expect(drawn[1]![0]!.logProb).toBeCloseTo(-Math.log(VOCABULARY), 5);
  });

  it('gives a row the same token whatever other rows are drawn from', async () => {
    const settings = { ...unfiltered, topP: 0.9 };
    const drawer = new TokenDrawer(VOCABULARY);
    const data = Float32Array.from(logitRows().flatMap((row) => [...row]));
    const feeds = { logits: wrap('float32', [ROWS, VOCABULARY], data), ...drawer.feeds(settings) };
    const outputs = await program.run(feeds, { probabilities });
    const own = (row: number) => ({ row, random: stream(row, 'own') });
    const together = await drawer.draw([own(2), own(0), own(1)], outputs, probabilities, settings);
    expect(await drawer.draw([own(1)], outputs, probabilities, settings)).toEqual(together.slice(2));
  });

  it.each([Number.NaN, Infinity])('refuses a row with a logit of %s', async (logit) => {
    const row = new Float32Array(VOCABULARY);
    row[17] = logit;
    await expect(draw([row], unfiltered, 1)).rejects.toThrow('not all numbers');
  });

  it('refuses settings outside their range', async () => {
    await expect(draw(logitRows(), { ...unfiltered, topP: 0 }, 1)).rejects.toThrow('topP is 0');
  });
});

describe('blockLength', () => {
  it.each([
    [151936, 64],
    [12800, 64],
    [100, 50],
    [7, 7],
  ])('divides a vocabulary of %i', (vocabSize, length) => {
    expect(blockLength(vocabSize)).toBe(length);
  });
});
