import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import type { Tensor } from '../../src/graph/tensor.js';
import type { Precision } from '../../src/nn/context.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { collateTexts } from '../../src/text/collate.js';
import { classificationFeeds, classificationGraph } from '../../src/training/classification.js';
import { classifierConfig, startingWeights } from '../../src/training/classifier-start.js';
import { plantOutliers } from '../../tools/forms/plant-outliers.js';
import { gradientDifference, type Gradients } from '../support/gradient-difference.js';

const NANO = 'assets/nano-deberta';
const runtime = new Runtime({ threads: 1 });
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rounded-test-'));
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

/** Texts of ordinary tokens, of different lengths, and their labels. */
const texts = [40, 23, 31, 12].map((length, i) => {
  const random = stream(2, 'text', i);
  return { tokens: Array.from({ length }, () => 300 + random.integer(800)), label: i % 2 };
});

interface Result {
  readonly loss: number;
  readonly gradients: Gradients;
}

/** Loss and gradients of all weights, without dropout: of these texts' share of the batch. */
async function learn(precision: Precision, batch = texts, model = NANO): Promise<Result> {
  const opened = await openModelFolder(model);
  const config = classifierConfig(opened, 0);
  const { graph, loss, context } = classificationGraph(config, { rdropAlpha: 0, precision });
  const weights = [...context.weights];
  const gradients = backward(
    loss,
    weights.map(([, value]) => value),
  );
  for (const [i, [name]] of weights.entries()) graph.output(`gradient/${name}`, gradients[i]!);
  const program = await runtime.compile(graph);
  const initial: Record<string, Tensor> = {};
  for (const [name, value] of startingWeights(opened, context.weights, 4).initial) {
    initial[name] = typeof value === 'function' ? await value() : value;
  }
  const sequences = batch.map(({ tokens }) => tokens);
  const feeds = classificationFeeds(
    config,
    collateTexts(sequences, { padId: config.padTokenId ?? 0 }),
    batch.map(({ label }) => label),
    batch.length / texts.length,
  );
  const results = await program.run({ ...feeds, ...initial });
  await program.dispose();
  return {
    loss: results['loss']!.data[0] as number,
    gradients: new Map(weights.map(([name]) => [name, results[`gradient/${name}`]!.data as Float32Array])),
  };
}

describe('products rounded to 8 bits', () => {
  it('keep the loss within 0.1 % of float32 and the gradient within 2 %', async () => {
    const [exact, rounded] = [await learn('float32'), await learn('int8')];
    expect(Math.abs(rounded.loss / exact.loss - 1)).toBeLessThan(1e-3);
    const apart = gradientDifference(rounded.gradients, exact.gradients);
    expect(apart).toBeGreaterThan(1e-3);
    expect(apart).toBeLessThan(0.02);
  });

  it('lose and learn of texts in one batch what they do one by one', async () => {
    const together = await learn('int8');
    const apart: Result[] = [];
    for (const text of texts) apart.push(await learn('int8', [text]));
    // A difference in the last bit may round a value of 8 bits to its other neighbour.
    expect(Math.abs(together.loss - apart.reduce((sum, { loss }) => sum + loss, 0))).toBeLessThan(2e-3);
    const sums = [...together.gradients].map(([name, values]): [string, Float32Array] => [
      name,
      values.map((_, i) => apart.reduce((sum, { gradients }) => sum + gradients.get(name)![i]!, 0)),
    ]);
    expect(gradientDifference(together.gradients, new Map(sums))).toBeLessThan(1e-2);
  });

  it.each([
    ['norms', 0.15],
    // Weights of float32 that are 0.35 % off make these two gradients more than 100 % other: they say nothing about rounding.
    ['rows', Infinity],
    ['columns', Infinity],
  ])('keep the loss within a hundredth where outliers are fifty times as large in %s', async (planting, bound) => {
    const dir = await plantOutliers(NANO, folder, planting);
    const [exact, rounded] = [await learn('float32', texts, dir), await learn('int8', texts, dir)];
    expect(Math.abs(rounded.loss / exact.loss - 1)).toBeLessThan(0.01);
    expect(gradientDifference(rounded.gradients, exact.gradients)).toBeLessThan(bound);
  });
});
