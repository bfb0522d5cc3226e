import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import type { Precision } from '../../src/nn/context.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { collateTexts } from '../../src/text/collate.js';
import { classificationFeeds, classificationGraph } from '../../src/training/classification.js';
import { classifierConfig, startingWeights } from '../../src/training/classifier-start.js';
import { gradientDifference, type Gradients } from '../support/gradient-difference.js';
import { plantOutliers, type IsLarge } from '../support/planted-outliers.js';

const NANO = process.env.RM_MODEL ?? 'assets/nano-deberta';
const runtime = new Runtime({ threads: 1 });
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rounded-test-'));
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

const LABELS = [1, 0, 1, 0];
const texts = [40, 23, 31, 12].map((length, i) => {
  const random = stream(2, 'text', i);
  return Array.from({ length }, () => 300 + random.integer(800));
});

interface Result {
  readonly loss: number;
  readonly gradients: Gradients;
}

/** Loss and gradients of all weights, without dropout. */
async function learn(precision: Precision, sequences: readonly number[][], model = NANO): Promise<Result> {
  const opened = await openModelFolder(model);
  const config = classifierConfig(opened, 0);
  const { graph, loss, context } = classificationGraph(config, { rdropAlpha: 0, precision });
  const { weights } = context;
  const gradients = backward(loss, [...weights.values()]);
  for (const [i, name] of [...weights.keys()].entries()) graph.output(`gradient/${name}`, gradients[i]!);
  const program = await runtime.compile(graph);
  const feeds: Parameters<typeof program.run>[0] = {};
  for (const [name, value] of startingWeights(opened, weights, 4).initial) {
    Object.assign(feeds, { [name]: typeof value === 'function' ? await value() : value });
  }
  const tokens = collateTexts(sequences, { padId: config.padTokenId ?? 0 });
  const labels = sequences.map((sequence) => LABELS[texts.indexOf(sequence)]!);
  Object.assign(feeds, classificationFeeds(config, tokens, labels, sequences.length / texts.length));
  const results = await program.run(feeds);
  await program.dispose();
  return {
    loss: Number(results['loss']!.data[0]),
    gradients: new Map([...weights.keys()].map((name) => [name, results[`gradient/${name}`]!.data as Float32Array])),
  };
}

describe('products rounded to 8 bits', () => {
  it('keep the loss within 1 % of float32 and the gradient within 5 %', async () => {
    const [exact, rounded] = [await learn('float32', texts), await learn('int8', texts)];
    console.log(exact.loss, rounded.loss, gradientDifference(rounded.gradients, exact.gradients));
  });
  const chosen = new Set([5, 40, 41]);
  it.each<[string, IsLarge]>([
    ['norms', (name, _, column) => /layer\..*LayerNorm.weight/.test(name) && chosen.has(column)],
    ['biases of norms', (name, _, column) => /layer\..*LayerNorm.bias/.test(name) && chosen.has(column)],
    ['columns', (name, _, column) => /layer\..*(dense|proj).weight/.test(name) && chosen.has(column)],
    ['rows', (name, row) => /layer\..*(dense|proj).weight/.test(name) && chosen.has(row)],
  ])('outliers in %s', async (name, isLarge) => {
    const dir = await plantOutliers(NANO, folder, isLarge);
    const [exact, rounded] = [await learn('float32', texts, dir), await learn('int8', texts, dir)];
    console.log(name, exact.loss, rounded.loss, gradientDifference(rounded.gradients, exact.gradients));
  });
});
