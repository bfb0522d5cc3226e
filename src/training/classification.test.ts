import { afterAll, describe, expect, it } from 'vitest';
import { TINY_CLASSIFIER } from '../../tests/support/tiny-encoder.js';
import { backward } from '../autodiff/backward.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import type { DebertaV2Config } from '../models/config/deberta-v2.js';
import { Runtime } from '../runtime/runtime.js';
import { collateTexts } from '../text/collate.js';
import { accuracyOf, classificationFeeds, classificationGraph, classificationParts } from './classification.js';
import { dropoutFeeds } from './dropout.js';
import { initialWeights } from './initial-weights.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const labels = [1, 0, 1];
const tokens = collateTexts(
  [
    [2, 30, 31, 3],
    [2, 32, 3],
    [2, 33, 34, 35, 36, 3],
  ],
  { padId: 0 },
);
const still: DebertaV2Config = {
  ...TINY_CLASSIFIER,
  hiddenDropoutProb: 0,
  attentionProbsDropoutProb: 0,
  classifierDropout: 0,
};

async function run(config: DebertaV2Config, rdropAlpha: number, step?: number): Promise<Record<string, Tensor>> {
  const { graph, context } = classificationGraph(config, { rdropAlpha });
  const program = await runtime.compile(graph);
  const weights = initialWeights(context.weights, config.initializerRange, 1);
  const seed = step === undefined ? {} : dropoutFeeds(7, step, [0, 1, 2]);
  const result = await program.run({
    ...classificationFeeds(config, tokens, labels),
    ...Object.fromEntries(weights),
    ...seed,
  });
  await program.dispose();
  return result;
}

const value = (report: Record<string, Tensor>, name: string): number => Number(report[name]!.data[0]);

describe('R-Drop', () => {
  it('is the mean cross entropy of two passes and alpha times the mean of both KLs', async () => {
    const report = await run(TINY_CLASSIFIER, 4, 3);
    expect(report['logits']!.shape).toEqual([6, 2]);
    const logP = Array.from({ length: 6 }, (_, row) => {
      const [zero, one] = report['logits']!.data.slice(2 * row, 2 * row + 2) as unknown as [number, number];
      const norm = Math.log(Math.exp(zero) + Math.exp(one));
      return [zero - norm, one - norm];
    });
    const entropy = -logP.reduce((total, row, i) => total + row[labels[i % 3]!]!, 0) / 6;
    const divergence = (p: number[], q: number[]): number =>
      p.reduce((total, value, label) => total + Math.exp(value) * (value - q[label]!), 0);
    const kl =
      labels.reduce(
        (total, _, i) => total + divergence(logP[i]!, logP[i + 3]!) + divergence(logP[i + 3]!, logP[i]!),
        0,
      ) / 6;
    expect(kl).toBeGreaterThan(1e-4);
    expect(value(report, 'ce')).toBeCloseTo(entropy, 5);
    expect(value(report, 'rdrop_kl')).toBeCloseTo(kl, 5);
    expect(value(report, 'loss')).toBeCloseTo(entropy + 4 * kl, 5);
  });

  it('drops out the same in a step that is taken again, and otherwise in another', async () => {
    const first = await run(TINY_CLASSIFIER, 4, 3);
    expect((await run(TINY_CLASSIFIER, 4, 3))['logits']).toEqual(first['logits']);
    expect((await run(TINY_CLASSIFIER, 4, 4))['logits']).not.toEqual(first['logits']);
  });

  it('makes one pass where its weight is 0 or nothing drops out', async () => {
    const one = await run(TINY_CLASSIFIER, 0, 3);
    expect(one['logits']!.shape).toEqual([3, 2]);
    expect(value(one, 'loss')).toBe(value(one, 'ce'));
    const quiet = await run(still, 4);
    expect(quiet['logits']!.shape).toEqual([3, 2]);
    expect(Object.keys(quiet).sort()).toEqual(['ce', 'logits', 'loss']);
  });
});

describe('parts of a batch', () => {
  it('have losses and gradients that sum to those of the batch', async () => {
    const { graph, context, loss } = classificationGraph(still, { rdropAlpha: 4 });
    const names = [...context.weights.keys()];
    const gradients = backward(loss, [...context.weights.values()]);
    for (const [i, name] of names.entries()) graph.output(`gradient/${name}`, gradients[i]!);
    const program = await runtime.compile(graph);
    const weights = Object.fromEntries(initialWeights(context.weights, still.initializerRange, 1));
    const batch = {
      sequences: [5, 3, 40, 4, 33, 38].map((length) => Array.from({ length }, (_, at) => 2 + at)),
      labels: [1, 0, 1, 1, 0, 0],
    };
    const summed = async (tokensAtOnce: number): Promise<{ parts: number; sums: Map<string, Float64Array> }> => {
      const parts = classificationParts(still, batch, { padId: 0, passes: 1, tokensAtOnce });
      const sums = new Map<string, Float64Array>();
      for (const { feeds } of parts) {
        for (const [name, { data }] of Object.entries(await program.run({ ...feeds, ...weights }))) {
          if (name === 'logits') continue;
          const sum = sums.get(name) ?? new Float64Array(data.length);
          for (const [at, value] of (data as Float32Array).entries()) sum[at]! += value;
          sums.set(name, sum);
        }
      }
      return { parts: parts.length, sums };
    };
    const whole = await program.run({
      ...classificationFeeds(still, collateTexts(batch.sequences, { padId: 0 }), batch.labels),
      ...weights,
    });
    for (const [tokensAtOnce, count] of [
      [Infinity, 2],
      [80, 3],
      [40, 4],
    ] as const) {
      const { parts, sums } = await summed(tokensAtOnce);
      expect(parts, `${tokensAtOnce} tokens at once`).toBe(count);
      expect([...sums.keys()]).toEqual(Object.keys(whole).filter((name) => name !== 'logits'));
      for (const [name, sum] of sums) {
        const largest = sum.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
        for (const [at, each] of sum.entries()) {
          const difference = Math.abs(each - Number(whole[name]!.data[at]));
          if (difference > 1e-6 + 1e-5 * largest) expect.unreachable(`${name}[${at}] differs by ${difference}`);
        }
      }
    }
    await program.dispose();
  });
});

it('counts a row as right where the logit of its label is the largest, in every pass', () => {
  const logits = tensor('float32', [4, 2], [0, 1, 1, 0, 1, 0, 1, 0]);
  expect(accuracyOf(logits, [1, 0])).toBe(0.75);
});
