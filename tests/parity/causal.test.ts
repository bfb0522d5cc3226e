import { afterAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { openModelFolder, type ModelFolder } from '../../src/checkpoints/model-folder.js';
import { readHeader, readFloats } from '../../src/checkpoints/safetensors.js';
import type { Value } from '../../src/graph/graph.js';
import { tensor, type Tensor } from '../../src/graph/tensor.js';
import type { CausalConfig } from '../../src/models/config/causal.js';
import { causalHidden, causalLogits } from '../../src/models/causal.js';
import { packedFeeds, packedTokens, predictionsOf } from '../../src/models/packed-tokens.js';
import { ModelContext, type LoraSettings } from '../../src/nn/context.js';
import { div, gatherRows, mul, neg, reduceSum, tokenLogProbs } from '../../src/ops/build.js';
import { newGraph } from '../../src/ops/registry.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';
import { padded, samplesOf, sequencesOf } from '../support/packed.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

type Recorded = ReadonlyMap<string, Tensor<'float32' | 'int32'>>;

function causal(folder: ModelFolder): CausalConfig {
  if (folder.config.kind !== 'causal') throw new Error(`${folder.dir} holds no causal model`);
  return folder.config;
}

const feedsOf = (batch: Recorded): Record<string, Tensor> =>
  packedFeeds(sequencesOf(take(batch, 'input_ids'), take(batch, 'attention_mask')));

/** Runs the model forward; what it gives for each token, as a padded batch with zeros at padding, as the record has it. */
async function maskedLogits(
  folder: ModelFolder,
  batch: Recorded,
  context: { lora?: LoraSettings; feeds?: Record<string, Tensor> } = {},
): Promise<Record<string, Float32Array>> {
  const config = causal(folder);
  const graph = newGraph();
  const model = new ModelContext(graph, context.lora === undefined ? {} : { lora: context.lora });
  const { hidden, states } = causalHidden(model, config, packedTokens(model));
  graph.output('logits', causalLogits(model, config, hidden));
  for (const [i, state] of states.entries()) graph.output(`hidden.${i}`, state);
  const program = await runtime.compile(graph, folder.weights);
  const result = await program.run({ ...feedsOf(batch), ...context.feeds });
  await program.dispose();
  const mask = take(batch, 'attention_mask');
  return Object.fromEntries(Object.entries(result).map(([name, values]) => [name, padded(values, mask)]));
}

/** A recorded (B, T, V) with the rows at padding set to zero. */
function masked(recorded: Tensor, batch: Recorded): Float32Array {
  const values = Float32Array.from(recorded.data as Float32Array);
  const mask = take(batch, 'attention_mask').data;
  const width = values.length / mask.length;
  for (const [row, real] of mask.entries()) if (real === 0) values.fill(0, row * width, (row + 1) * width);
  return values;
}

/** Mean cross entropy over positions whose target is a completion token, and its gradients. */
async function lossAndGradients(
  folder: ModelFolder,
  batch: Recorded,
  trained: 'model' | LoraSettings,
  adapter: Record<string, Tensor> = {},
) {
  const config = causal(folder);
  const graph = newGraph();
  const model = new ModelContext(graph, trained === 'model' ? {} : { lora: trained });
  const { hidden } = causalHidden(model, config, packedTokens(model));
  const rows = graph.input('rows', 'int32', ['N']);
  const targets = graph.input('targets', 'int32', ['N']);
  const weights = graph.input('weights', 'float32', ['N']);
  const logits = causalLogits(model, config, gatherRows(hidden, rows));
  const loss = div(neg(reduceSum(mul(tokenLogProbs(logits, targets), weights))), reduceSum(weights));
  graph.output('loss', loss);
  const trainable: ReadonlyMap<string, Value> = trained === 'model' ? model.weights : model.loraWeights;
  const gradients = backward(loss, [...trainable.values()]);
  for (const [i, name] of [...trainable.keys()].entries()) graph.output(`grad/${name}`, gradients[i]!);

  const [ids, mask, completion] = ['input_ids', 'attention_mask', 'completion_mask'].map((name) => take(batch, name));
  const predictions = predictionsOf(samplesOf(ids!, mask!, completion!));
  const count = predictions.targets.length;
  const program = await runtime.compile(graph, folder.weights);
  const result = await program.run({
    ...feedsOf(batch),
    ...adapter,
    rows: tensor('int32', [count], predictions.rows),
    targets: tensor('int32', [count], predictions.targets),
    weights: tensor('float32', [count], new Array<number>(count).fill(1)),
  });
  await program.dispose();
  return result;
}

async function loraAdapter(): Promise<Record<string, Tensor>> {
  const { tensors } = await readHeader(golden('lora/adapter/adapter_model.safetensors'));
  const entries = await Promise.all(
    [...tensors.values()].map(async (info) => [info.name, await readFloats(info)] as const),
  );
  return Object.fromEntries(entries);
}

const lora: LoraSettings = {
  r: 4,
  alpha: 8,
  dropout: 0,
  targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
};

describe.each(['qwen3', 'qwen3_untied', 'qwen3_sharded_bf16', 'qwen2', 'llama'])('%s', (name) => {
  it('gives the recorded logits of right-padded rows', async () => {
    const folder = await openModelFolder(golden(`${name}/model`));
    const batch = await goldenTensors(`${name}/batch.safetensors`);
    const { logits } = await maskedLogits(folder, batch);
    expect(excess(logits!, masked(take(batch, 'logits'), batch), { atol: 1e-4 })).toBeLessThanOrEqual(0);
  });
});

describe('qwen3', () => {
  it('gives the recorded hidden states of every block', async () => {
    const folder = await openModelFolder(golden('qwen3/model'));
    const batch = await goldenTensors('qwen3/batch.safetensors');
    const result = await maskedLogits(folder, batch);
    for (let i = 0; i <= causal(folder).numHiddenLayers; i++) {
      const recorded = masked(take(batch, `hidden.${i}`), batch);
      expect(excess(result[`hidden.${i}`]!, recorded, { atol: 1e-4 })).toBeLessThanOrEqual(0);
    }
  });

  it.each(['qwen3', 'qwen3_untied', 'qwen2', 'llama'])(
    '%s gives the recorded logits of left-padded rows',
    async (name) => {
      const folder = await openModelFolder(golden(`${name}/model`));
      const batch = await goldenTensors(`${name}/left.safetensors`);
      const { logits } = await maskedLogits(folder, batch);
      expect(excess(logits!, take(batch, 'logits').data, { atol: 1e-4 })).toBeLessThanOrEqual(0);
    },
  );

  it('gives the recorded loss and the gradient of every parameter', async () => {
    const folder = await openModelFolder(golden('qwen3/model'));
    const result = await lossAndGradients(folder, await goldenTensors('qwen3/batch.safetensors'), 'model');
    const { loss } = goldenJson('qwen3/scalars.json') as { loss: number };
    expect(Math.abs(Number(result['loss']!.data[0]) - loss)).toBeLessThanOrEqual(1e-5);
    const recorded = await goldenTensors('qwen3/grads.safetensors');
    expect(recorded.size).toBeGreaterThan(0);
    for (const [name, grad] of recorded) {
      const ours = result[`grad/${name}`];
      expect(ours?.shape, name).toEqual(grad.shape);
      expect(excess(ours!.data as Float32Array, grad.data, { atol: 1e-5, rtol: 1e-3 }), name).toBeLessThanOrEqual(0);
    }
  });
});

describe.each(['qwen2', 'llama'])('%s', (name) => {
  it('gives the recorded loss', async () => {
    const folder = await openModelFolder(golden(`${name}/model`));
    const { loss } = await lossAndGradients(folder, await goldenTensors(`${name}/batch.safetensors`), 'model');
    const recorded = (goldenJson(`${name}/scalars.json`) as { loss: number }).loss;
    expect(Math.abs(Number(loss!.data[0]) - recorded)).toBeLessThanOrEqual(1e-5);
  });
});

describe('lora', () => {
  it('gives the recorded logits with the adapter', async () => {
    const folder = await openModelFolder(golden('qwen3/model'));
    const batch = await goldenTensors('lora/batch.safetensors');
    const { logits } = await maskedLogits(folder, batch, { lora, feeds: await loraAdapter() });
    expect(excess(logits!, take(batch, 'logits').data, { atol: 1e-4 })).toBeLessThanOrEqual(0);
    const without = await maskedLogits(folder, batch);
    const recorded = take(batch, 'logits_without_adapter').data;
    expect(excess(without['logits']!, recorded, { atol: 1e-4 })).toBeLessThanOrEqual(0);
  });

  it('gives the recorded loss and the gradient of every adapter weight', async () => {
    const folder = await openModelFolder(golden('qwen3/model'));
    const result = await lossAndGradients(
      folder,
      await goldenTensors('lora/batch.safetensors'),
      lora,
      await loraAdapter(),
    );
    const { loss } = goldenJson('lora/scalars.json') as { loss: number };
    expect(Math.abs(Number(result['loss']!.data[0]) - loss)).toBeLessThanOrEqual(1e-5);
    const recorded = await goldenTensors('lora/grads.safetensors');
    expect(recorded.size).toBe(2 * 7 * 3);
    for (const [name, grad] of recorded) {
      expect(
        excess(result[`grad/${name}`]!.data as Float32Array, grad.data, { atol: 1e-5, rtol: 1e-3 }),
        name,
      ).toBeLessThanOrEqual(0);
    }
  });
});
