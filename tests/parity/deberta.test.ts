import { afterAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { wrap, type Tensor } from '../../src/graph/tensor.js';
import type { DebertaV2Config } from '../../src/models/config/deberta-v2.js';
import { debertaV2Classify, debertaV2Hidden, debertaV2Inputs, relativeIndex } from '../../src/models/deberta-v2.js';
import { ModelContext } from '../../src/nn/context.js';
import { crossEntropy, rDrop } from '../../src/nn/losses.js';
import { newGraph } from '../../src/ops/registry.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

async function run(
  name: string,
): Promise<{ result: Record<string, Tensor>; config: DebertaV2Config; batch: ReadonlyMap<string, Tensor> }> {
  const folder = await openModelFolder(golden(`${name}/model`));
  if (folder.config.modelType !== 'deberta-v2') throw new Error(`${name} is no DeBERTa-v2`);
  const { config } = folder;
  const graph = newGraph();
  const model = new ModelContext(graph);
  const { hidden, states } = debertaV2Hidden(model, config, debertaV2Inputs(model));
  const logits = debertaV2Classify(model, config, hidden);
  const loss = crossEntropy(logits, graph.input('labels', 'int32', ['B']));
  graph.output('logits', logits);
  graph.output('loss', loss);
  for (const [i, state] of states.entries()) graph.output(`hidden.${i}`, state);
  const gradients = backward(loss, [...model.weights.values()]);
  for (const [i, weight] of [...model.weights.keys()].entries()) graph.output(`grad/${weight}`, gradients[i]!);
  const batch = await goldenTensors(`${name}/batch.safetensors`);
  const ids = take(batch, 'input_ids');
  const program = await runtime.compile(graph, folder.weights);
  const result = await program.run({
    input_ids: ids,
    attention_mask: take(batch, 'attention_mask'),
    labels: take(batch, 'labels'),
    relative_index: relativeIndex(config, ids.shape[1]!),
  });
  await program.dispose();
  return { result, config, batch };
}

describe.each(['deberta', 'deberta/conv'])('%s', (name) => {
  it('gives the recorded logits, hidden states, loss and gradients', async () => {
    const { result, config, batch } = await run(name);
    expect(
      excess(result['logits']!.data as Float32Array, take(batch, 'logits').data as Float32Array, { atol: 1e-4 }),
    ).toBeLessThanOrEqual(0);
    const { loss } = goldenJson(`${name}/scalars.json`) as { loss: number };
    expect(Math.abs(Number(result['loss']!.data[0]) - loss)).toBeLessThanOrEqual(1e-5);

    const mask = take(batch, 'attention_mask').data;
    for (let i = 0; i <= config.numHiddenLayers; i++) {
      const ours = result[`hidden.${i}`]!.data as Float32Array;
      for (const [row, real] of mask.entries()) {
        if (Number(real) === 0) ours.fill(0, row * config.hiddenSize, (row + 1) * config.hiddenSize);
      }
      expect(
        excess(ours, take(batch, `hidden.${i}`).data as Float32Array, { atol: 1e-4 }),
        `hidden.${i}`,
      ).toBeLessThanOrEqual(0);
    }
    const recorded = await goldenTensors(`${name}/grads.safetensors`);
    expect(recorded.size).toBeGreaterThan(10);
    for (const [weight, grad] of recorded) {
      const ours = result[`grad/${weight}`];
      expect(ours?.shape, weight).toEqual(grad.shape);
      expect(excess(ours!.data as Float32Array, grad.data, { atol: 1e-5, rtol: 1e-3 }), weight).toBeLessThanOrEqual(0);
    }
  });
});

describe('rdrop', () => {
  it('gives the recorded loss, its parts and the gradients of both passes', async () => {
    const recorded = await goldenTensors('deberta/rdrop/rdrop.safetensors');
    const scalars = goldenJson('deberta/rdrop/rdrop.json') as {
      alpha: number;
      loss_f64: number;
      ce_f64: number;
      kl_f64: number;
    };
    const graph = newGraph();
    const inputs = ['logits1', 'logits2'].map((name) => graph.input(name, 'float64', ['N', 2]));
    const parts = rDrop(inputs[0]!, inputs[1]!, graph.input('labels', 'int32', ['N']), scalars.alpha);
    for (const [name, value] of Object.entries(parts)) graph.output(name, value);
    for (const [i, grad] of backward(parts.loss, inputs).entries()) graph.output(`grad${i + 1}`, grad);
    const program = await runtime.compile(graph);
    const wide = (name: string): Tensor => {
      const { shape, data } = take(recorded, name);
      return wrap('float64', shape, Float64Array.from(data));
    };
    const result = await program.run({
      logits1: wide('logits1'),
      logits2: wide('logits2'),
      labels: take(recorded, 'labels'),
    });
    expect(Math.abs(Number(result['loss']!.data[0]) - scalars.loss_f64)).toBeLessThanOrEqual(1e-12);
    expect(Math.abs(Number(result['crossEntropy']!.data[0]) - scalars.ce_f64)).toBeLessThanOrEqual(1e-12);
    expect(Math.abs(Number(result['kl']!.data[0]) - scalars.kl_f64)).toBeLessThanOrEqual(1e-12);
    for (const name of ['grad1', 'grad2']) {
      expect(excess(result[name]!.data as Float64Array, take(recorded, name).data, { atol: 1e-6 })).toBeLessThanOrEqual(
        0,
      );
    }
  });
});
