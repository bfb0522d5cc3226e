import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { wrap, type Tensor } from '../graph/tensor.js';
import { add } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { stream } from '../random.js';
import { Runtime, type DeviceTensor, type Program } from '../runtime/runtime.js';
import { blockSizes, outputCandidates } from './candidate-blocks.js';
import { sampleToken, SamplerScratch } from './sampler.js';
import { unfiltered } from './sampling-settings.js';
import { TokenDrawer } from './token-drawer.js';

const ROWS = 3;
/** Of 32 · 400 tokens 256 blocks come back. */
const VOCABULARY = 12800;

const runtime = new Runtime({ threads: 1 });
let program: Program;
let stored: DeviceTensor;
beforeAll(async () => {
  const graph = newGraph();
  const logits = add(graph.input('x', 'float32', ['B', VOCABULARY]), 0);
  graph.output('logits', logits);
  outputCandidates(logits);
  program = await runtime.compile(graph);
  stored = await runtime.allocate('float32', [ROWS, VOCABULARY]);
});
afterAll(() => runtime.close());

/** Rows of a peaked, a middling and a flat distribution. */
function logitRows(number: number): Float32Array {
  const random = stream(9, number);
  return Float32Array.from(
    { length: ROWS * VOCABULARY },
    (_, i) => [4, 2, 0.1][Math.floor(i / VOCABULARY)]! * random.normal(),
  );
}

describe('TokenDrawer', () => {
  it.each([
    ['top-p', { ...unfiltered, temperature: 0.8, topP: 0.95 }],
    ['top-k', { ...unfiltered, temperature: 1.2, topK: 50 }],
    ['top-k and top-p', { ...unfiltered, temperature: 1.2, topK: 500, topP: 0.9 }],
    ['min-p', { ...unfiltered, minP: 0.1 }],
    ['no filter', { ...unfiltered, temperature: 0.8 }],
    ['no temperature', { ...unfiltered, temperature: 0 }],
  ])('draws with %s what the whole row gives, with its log-probability', async (_, settings) => {
    const drawer = new TokenDrawer(VOCABULARY);
    const scratch = new SamplerScratch(VOCABULARY);
    const [mine, reference] = [stream(1, 'draws'), stream(1, 'draws')];
    for (let number = 0; number < 15; number++) {
      const data = logitRows(number);
      const x: Tensor = wrap('float32', [ROWS, VOCABULARY], data);
      const outputs = await program.run({ x, ...drawer.feeds(settings) }, { logits: stored });
      const draws = [0, 1, 2, 0, 1, 2].map((row) => ({ row, random: mine }));
      const drawn = await drawer.draw(draws, outputs, stored, settings);
      for (const [i, { row }] of draws.entries()) {
        const logits = data.subarray(row * VOCABULARY, (row + 1) * VOCABULARY);
        const token = sampleToken(logits, settings, reference, scratch);
        expect(drawn[i]!.token).toBe(token);
        const temperature = settings.temperature || 1;
        const total = logits.reduce((sum, logit) => sum + Math.exp(logit / temperature), 0);
        expect(drawn[i]!.logProb).toBeCloseTo(logits[token]! / temperature - Math.log(total), 5);
      }
    }
    expect(mine.state()).toEqual(reference.state());
  });
});

describe('blockSizes', () => {
  it.each([
    [151936, { length: 32, chosen: 256 }],
    [320, { length: 32, chosen: 10 }],
    [21128, { length: 19, chosen: 256 }],
    [13, { length: 13, chosen: 1 }],
    [50257, { length: 29, chosen: 256 }],
    [127, { length: 1, chosen: 127 }],
  ])('of a vocabulary of %i divide it', (vocabSize, sizes) => {
    expect(blockSizes(vocabSize)).toEqual(sizes);
    expect(vocabSize % sizes.length).toBe(0);
  });
});
