import { afterAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import type { Graph, Value } from '../../src/graph/graph.js';
import type { Tensor } from '../../src/graph/tensor.js';
import type { MaskedSequence } from '../../src/models/packed-tokens.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { collateTexts } from '../../src/text/collate.js';
import { classificationFeeds, classificationGraph } from '../../src/training/classification.js';
import { dropoutFeeds, packedDropoutFeeds } from '../../src/training/dropout.js';
import { initialWeights } from '../../src/training/initial-weights.js';
import { causalGraph, causalLossFeeds } from '../../src/training/language.js';
import { excess } from '../support/golden.js';
import { TINY_CLASSIFIER } from '../support/tiny-encoder.js';
import { TINY_FAMILIES } from '../support/tiny-model.js';

/*
 * What is computed again for the gradient is what was computed before: the same operations on the same numbers, dropout
 * masks included.
 */

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

type Weights = ReadonlyMap<string, Value>;

async function gradients(
  { graph, loss, trainable }: { graph: Graph; loss: Value; trainable: Weights },
  feeds: Readonly<Record<string, Tensor>>,
): Promise<Record<string, Tensor>> {
  for (const [i, gradient] of backward(loss, [...trainable.values()]).entries()) {
    graph.output(`gradient/${[...trainable.keys()][i]!}`, gradient);
  }
  const program = await runtime.compile(graph);
  const result = await program.run(
    Object.fromEntries(Object.entries(feeds).filter(([name]) => program.inputs.has(name))),
  );
  await program.dispose();
  return result;
}

describe('gradients with blocks computed again are those without', () => {
  const lora = { r: 2, alpha: 4, dropout: 0.3, targetModules: ['q_proj', 'v_proj', 'down_proj'] };
  const batch: MaskedSequence[] = [
    { inputIds: [5, 6, 7, 8, 9], completionMask: [0, 0, 1, 1, 1] },
    { inputIds: [15, 16, 17], completionMask: [0, 1, 1] },
  ];

  it.each([
    ['Qwen3', lora],
    ['Qwen3', undefined],
    ['Qwen2', lora],
  ])('%s, adapter %o', async (family, adapter) => {
    const config = TINY_FAMILIES[family]!;
    const run = async (recompute: boolean): Promise<Record<string, Tensor>> => {
      const { graph, context, loss } = causalGraph(config, {
        ...(adapter && { lora: adapter, training: true }),
        statistics: true,
        recompute,
      });
      expect(graph.recomputed).toHaveLength(recompute ? config.numHiddenLayers : 0);
      const feeds = {
        ...causalLossFeeds(batch, 5),
        ...packedDropoutFeeds(
          7,
          3,
          batch.map((sample, row) => ({ row, sequences: [sample] })),
        ),
        ...Object.fromEntries(initialWeights(context.weights, config.initializerRange, 1)),
        ...Object.fromEntries(initialWeights(context.loraWeights, config.initializerRange, 2)),
      };
      const trainable = adapter === undefined ? context.weights : context.loraWeights;
      return gradients({ graph, loss, trainable }, feeds);
    };
    expect(await run(true)).toEqual(await run(false));
  });

  it.each([0, 4])('a classifier with dropout, R-Drop α %i', async (rdropAlpha) => {
    const tokens = collateTexts(
      [
        [2, 30, 31, 3],
        [2, 32, 3],
      ],
      { padId: 0 },
    );
    const run = async (recompute: boolean): Promise<Record<string, Tensor>> => {
      const { graph, context, loss } = classificationGraph(TINY_CLASSIFIER, { rdropAlpha, recompute });
      const feeds = {
        ...classificationFeeds(TINY_CLASSIFIER, tokens, [1, 0]),
        ...dropoutFeeds(7, 3, [0, 1]),
        ...Object.fromEntries(initialWeights(context.weights, TINY_CLASSIFIER.initializerRange, 1)),
      };
      return gradients({ graph, loss, trainable: context.weights }, feeds);
    };
    const [again, kept] = [await run(true), await run(false)];
    expect(Object.keys(again)).toEqual(Object.keys(kept));
    for (const [name, { data }] of Object.entries(kept)) {
      // The runtime fuses what is kept another way, so that last bits differ.
      expect(
        excess(again[name]!.data as Float32Array, data as Float32Array, { atol: 1e-6, rtol: 1e-5 }),
        name,
      ).toBeLessThanOrEqual(0);
    }
  });
});
