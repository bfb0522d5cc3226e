import { afterAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import type { Value } from '../../src/graph/graph.js';
import type { Tensor } from '../../src/graph/tensor.js';
import { bertFeeds, bertHidden, bertInputs, bertMaskedLogits } from '../../src/models/bert.js';
import { classifierFeeds, classifierLogits } from '../../src/models/classifier.js';
import type { ModelConfig } from '../../src/models/config/model-config.js';
import { parseRope } from '../../src/models/config/rope.js';
import type { PaddedTokens } from '../../src/models/padded-tokens.js';
import { ModelContext } from '../../src/nn/context.js';
import { crossEntropy } from '../../src/nn/losses.js';
import { rotaryFrequencies } from '../../src/nn/rotary.js';
import { flattenRows, gatherRows } from '../../src/ops/build.js';
import { newGraph } from '../../src/ops/registry.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const tokensOf = (batch: ReadonlyMap<string, Tensor<'float32' | 'int32'>>): PaddedTokens => {
  const ids = take(batch, 'input_ids');
  const [rows, length] = ids.shape as [number, number];
  return {
    inputIds: ids.data as Int32Array,
    attentionMask: take(batch, 'attention_mask').data as Int32Array,
    batch: rows,
    length,
  };
};

/** Runs a graph of logits and, where there are labels, their cross entropy with every gradient. */
async function compute(
  name: string,
  build: (context: ModelContext, config: ModelConfig) => Value,
  feedsOf: (config: ModelConfig, tokens: PaddedTokens) => Record<string, Tensor>,
  labels?: Tensor,
): Promise<Record<string, Tensor>> {
  const { config, weights } = await openModelFolder(golden(`${name}/model`));
  const context = new ModelContext(newGraph());
  const { graph } = context;
  const logits = build(context, config);
  graph.output('logits', logits);
  if (labels !== undefined) {
    const loss = crossEntropy(logits, graph.input('labels', 'int32', [logits.shape[0]!]));
    graph.output('loss', loss);
    const gradients = backward(loss, [...context.weights.values()]);
    for (const [i, weight] of [...context.weights.keys()].entries()) graph.output(`grad/${weight}`, gradients[i]!);
  }
  const program = await runtime.compile(graph, weights);
  const batch = tokensOf(await goldenTensors(`${name}/batch.safetensors`));
  const result = await program.run({ ...feedsOf(config, batch), ...(labels === undefined ? {} : { labels }) });
  await program.dispose();
  return result;
}

async function expectRecorded(name: string, result: Record<string, Tensor>): Promise<void> {
  const { loss } = goldenJson(`${name}/scalars.json`) as { loss: number };
  expect(Math.abs(Number(result['loss']!.data[0]) - loss)).toBeLessThanOrEqual(1e-5);
  const recorded = await goldenTensors(`${name}/grads.safetensors`);
  expect(recorded.size).toBeGreaterThan(20);
  for (const [weight, grad] of recorded) {
    const ours = result[`grad/${weight}`];
    expect(ours?.shape, weight).toEqual(grad.shape);
    expect(excess(ours!.data as Float32Array, grad.data, { atol: 1e-5, rtol: 1e-3 }), weight).toBeLessThanOrEqual(0);
  }
}

describe('bert', () => {
  it.each(['logits', 'logits_with_token_types'])('gives the recorded %s', async (recorded) => {
    const batch = await goldenTensors('bert/batch.safetensors');
    const types = recorded === 'logits' ? undefined : (take(batch, 'token_type_ids').data as Int32Array);
    const { logits } = await compute('bert', classifierLogits, (config, tokens) => {
      if (config.modelType !== 'bert') throw new Error('the recording is no BERT');
      return bertFeeds(config, tokens, types);
    });
    const expected = take(batch, recorded).data;
    expect(excess(logits!.data as Float32Array, expected, { atol: 1e-4 })).toBeLessThanOrEqual(0);
  });
});

describe.each(['roberta', 'qwen3_classifier', 'llama_classifier'])('%s', (name) => {
  it('gives the recorded logits, loss and the gradient of every parameter', async () => {
    const batch = await goldenTensors(`${name}/batch.safetensors`);
    const result = await compute(name, classifierLogits, classifierFeeds, take(batch, 'labels'));
    const logits = result['logits']!.data as Float32Array;
    expect(excess(logits, take(batch, 'logits').data, { atol: 1e-4 })).toBeLessThanOrEqual(0);
    await expectRecorded(name, result);
  });
});

describe.each(['roberta_masked', 'bert_masked'])('%s', (name) => {
  it('gives the recorded logits of every token, loss and the gradient of every parameter', async () => {
    const batch = await goldenTensors(`${name}/batch.safetensors`);
    const mask = take(batch, 'attention_mask').data;
    const rows = [...mask.keys()].filter((at) => mask[at] === 1);
    const labels = take(batch, 'labels').data;
    const types = batch.get('token_type_ids')?.data as Int32Array | undefined;
    const result = await compute(
      name,
      (context, config) => {
        if (config.modelType !== 'bert' && config.modelType !== 'roberta') throw new Error(`${name} is no BERT`);
        const { hidden } = bertHidden(context, config, bertInputs(context));
        const real = gatherRows(flattenRows(hidden), context.graph.input('rows', 'int32', ['N']));
        return bertMaskedLogits(context, config, real);
      },
      (config, tokens) => {
        if (config.modelType !== 'bert' && config.modelType !== 'roberta') throw new Error(`${name} is no BERT`);
        return { ...bertFeeds(config, tokens, types), rows: int32(rows) };
      },
      int32(rows.map((at) => labels[at]!)),
    );
    const width = result['logits']!.shape[1]!;
    const recorded = take(batch, 'logits').data as Float32Array;
    const expected = rows.flatMap((at) => [...recorded.subarray(at * width, (at + 1) * width)]);
    expect(excess(result['logits']!.data as Float32Array, expected, { atol: 1e-4 })).toBeLessThanOrEqual(0);
    await expectRecorded(name, result);
  });
});

const int32 = (values: readonly number[]): Tensor => ({
  dtype: 'int32',
  shape: [values.length],
  data: Int32Array.from(values),
});

interface RecordedRope {
  readonly head_dim: number;
  readonly rope_parameters: Readonly<Record<string, unknown>> & { readonly rope_theta: number };
  readonly attention_factor: number;
  readonly frequencies: readonly number[];
}

describe('rope', () => {
  const { cases } = goldenJson('rope/rope.json') as { cases: readonly RecordedRope[] };
  it.each(cases)('$rope_parameters of heads of $head_dim has the recorded frequencies', (recorded) => {
    const { rope_theta, ...scaling } = recorded.rope_parameters;
    const old = { rope_theta, rope_scaling: scaling, max_position_embeddings: 131072 };
    const rope = parseRope(old, 'config.json');
    const now = { rope_theta: 1, rope_parameters: recorded.rope_parameters, max_position_embeddings: 131072 };
    expect(parseRope(now, 'config.json')).toEqual(rope);
    const ours = rotaryFrequencies(rope, recorded.head_dim);
    expect(ours.length).toBe(recorded.frequencies.length);
    // Two float32 roundings apart at most: powers and logarithms are taken in float32 there and in float64 here.
    for (const [i, frequency] of recorded.frequencies.entries()) {
      expect(Math.abs(ours[i]! - frequency)).toBeLessThanOrEqual(2e-6 * frequency);
    }
    expect('attentionFactor' in rope ? rope.attentionFactor : 1).toBeCloseTo(recorded.attention_factor, 12);
  });
});
