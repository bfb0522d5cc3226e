import { mkdtemp, readFile, rm as remove } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward } from '../../src/autodiff/backward.js';
import { readFloats, readHeader } from '../../src/checkpoints/safetensors.js';
import { loadConfig } from '../../src/config/load.js';
import type { StageName } from '../../src/config/stages.js';
import { UserError } from '../../src/errors.js';
import type { Graph, Value } from '../../src/graph/graph.js';
import { tensor, type Tensor } from '../../src/graph/tensor.js';
import { add } from '../../src/ops/build.js';
import { newGraph } from '../../src/ops/registry.js';
import { stream } from '../../src/random.js';
import type { StageContext } from '../../src/runs/events.js';
import { chooseDevice } from '../../src/runtime/choose-device.js';
import type { Placement } from '../../src/runtime/protocol.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { grpo } from '../../src/stages/grpo.js';
import { pretrain } from '../../src/stages/pretrain.js';
import { rm } from '../../src/stages/rm.js';
import { sft } from '../../src/stages/sft.js';
import { collateTexts } from '../../src/text/collate.js';
import { classificationFeeds, classificationGraph } from '../../src/training/classification.js';
import { dropoutFeeds, packedDropoutFeeds } from '../../src/training/dropout.js';
import { causalGraph, causalLossFeeds } from '../../src/training/language.js';
import { miniRows, writeMiniData, writeMiniEncoder, writeMiniPolicy } from '../support/mini-humor.js';
import { whole } from '../support/packed.js';
import { TINY_CLASSIFIER } from '../support/tiny-encoder.js';
import { TINY } from '../support/tiny-model.js';

/*
 * A GPU computes what the processor computes. Without a GPU the GPU's part runs on SwiftShader, a Vulkan driver in
 * software (tools/swiftshader.sh); where neither is there, the first test says so.
 */

const root = await mkdtemp(join(tmpdir(), 'duanzi-devices-'));
const folder = (name: string): string => join(root, name);
afterAll(() => remove(root, { recursive: true }));

const absent = await chooseDevice('webgpu').then(
  () => undefined,
  (error: unknown) => error as UserError,
);
if (absent !== undefined) console.warn(`devices: webgpu is not compared with cpu: ${absent.where ?? absent.message}`);

const silent: StageContext = { onEvent: () => undefined };
const configure = <Name extends StageName>(stage: Name, flags: Record<string, unknown>) => loadConfig({ stage, flags });

const sizes = { vocabSize: 500, hiddenSize: 16, intermediateSize: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 8 };

const stages = {
  pretrain: {
    result: 'model/model.safetensors',
    run: async (flags: Record<string, unknown>) => {
      const own = Object.fromEntries(Object.entries(sizes).map(([key, value]) => [`pretrain.${key}`, value]));
      return pretrain(await configure('pretrain', { ...flags, ...own, 'pretrain.maxLength': 48 }), silent);
    },
  },
  sft: {
    result: 'adapter/adapter_model.safetensors',
    run: async (flags: Record<string, unknown>) => {
      const own = { model: folder('policy'), 'sft.samples': 1, 'sft.sampling.maxNewTokens': 4 };
      return sft(await configure('sft', { ...flags, ...own, 'sft.gradientAccumulationSteps': 2 }), silent);
    },
  },
  rm: {
    result: 'model/model.safetensors',
    run: async (flags: Record<string, unknown>) =>
      rm(await configure('rm', { ...flags, model: folder('encoder'), 'rm.baselines': false }), silent),
  },
  grpo: {
    result: 'adapter/adapter_model.safetensors',
    run: async (flags: Record<string, unknown>) => {
      const own = {
        model: folder('policy'),
        rm: folder('judge'),
        'grpo.completionsPerRollout': 4,
        'grpo.maxCompletionLength': 6,
        'grpo.evalPrompts': 2,
      };
      return grpo(await configure('grpo', { ...flags, ...own }), silent);
    },
  },
};

interface Outcome {
  readonly metrics: Record<string, number>[];
  readonly weights: Map<string, readonly number[]>;
}

const LEARNING_RATE = 1e-3;

async function outcomeOn(device: string, name: keyof typeof stages): Promise<Outcome> {
  const out = await stages[name].run({
    'data.dir': folder('data'),
    'data.validationFraction': 0.1,
    'data.templates.headline': '标题：{headline}\n',
    // The others warm up: their first step changes nothing.
    [`${name}.maxSteps`]: name === 'sft' || name === 'grpo' ? 1 : 2,
    [`${name}.batchSize`]: name === 'grpo' ? 4 : 2,
    [`${name}.loggingSteps`]: 1,
    [`${name}.learningRate`]: LEARNING_RATE,
    [`${name}.warmupSteps`]: 0,
    threads: 1,
    device,
    out: folder(`${name}-${device}`),
  });
  const lines = (await readFile(join(out, 'metrics.jsonl'), 'utf8')).trim().split('\n');
  const weights = new Map<string, readonly number[]>();
  for (const info of (await readHeader(join(out, stages[name].result))).tensors.values()) {
    weights.set(info.name, [...(await readFloats(info)).data]);
  }
  return { metrics: lines.map((line) => JSON.parse(line) as Record<string, number>), weights };
}

/** What a clock or the machine says is not the model's. */
const isMeasured = (metric: string): boolean => /second|time|memory|bytes|rss/.test(metric);

/** Runs a graph on both devices; on webgpu also tells where each kind of node ran. */
async function runOnBoth(
  graph: Graph,
  feeds: Readonly<Record<string, Tensor>>,
): Promise<{ cpu: Record<string, Tensor>; webgpu: Record<string, Tensor>; placement: readonly Placement[] }> {
  const trace = await mkdtemp(folder('trace-'));
  const [cpu, webgpu] = [new Runtime({ threads: 1 }), new Runtime({ device: 'webgpu', threads: 1, trace })];
  try {
    const program = await webgpu.compile(graph);
    return {
      cpu: await (await cpu.compile(graph)).run(feeds),
      webgpu: await program.run(feeds),
      placement: await program.placement(),
    };
  } finally {
    await Promise.all([cpu.close(), webgpu.close()]);
  }
}

/** Equal within 1e-5 of each output's largest magnitude, as small as the gradients of a weight may be. */
function expectSame(actual: Record<string, Tensor>, expected: Record<string, Tensor>): void {
  for (const [name, { shape, data }] of Object.entries(expected)) {
    expect(actual[name]!.shape, name).toEqual(shape);
    const values = Array.from(data, Number);
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const apart = values.map((value, i) => Math.abs(value - Number(actual[name]!.data[i])));
    expect(Math.max(...apart), name).toBeLessThanOrEqual(1e-5 * largest);
  }
}

/** Nothing but the arithmetic of shapes, whole numbers all of it, ran on the processor. */
function expectOnDevice(placement: readonly Placement[]): void {
  const floats = (provider: RegExp): string[] =>
    placement.flatMap((node) =>
      provider.test(node.provider) && node.outputs.some((dtype) => dtype.startsWith('float')) ? [node.op] : [],
    );
  expect([...new Set(floats(/CPU/))]).toEqual([]);
  expect(floats(/WebGpu/)).toContain('MatMul');
}

/** Random values for what is neither token nor label. */
function weightFeeds(graph: Graph, given: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
  const random = stream(5, 'weights');
  const feeds: Record<string, Tensor> = {};
  for (const { op, outputs, attributes } of graph.liveNodes()) {
    const name = String(attributes['name']);
    if (op !== 'input' && op !== 'parameter') continue;
    const shape = outputs[0]!.shape as readonly number[];
    const size = shape.reduce((product, dim) => product * dim, 1);
    feeds[name] =
      given[name] ??
      tensor(
        'float32',
        shape,
        Array.from({ length: size }, () => 0.3 * random.normal()),
      );
  }
  return feeds;
}

function withGradients(graph: Graph, loss: Value, trainable: ReadonlyMap<string, Value>): Graph {
  const gradients = backward(loss, [...trainable.values()]);
  for (const [i, name] of [...trainable.keys()].entries()) graph.output(`gradient/${name}`, gradients[i]!);
  return graph;
}

const SEQUENCES = [
  [3, 14, 15, 92, 65, 35],
  [8, 97, 93, 23],
];

describe.runIf(absent !== undefined)('without a GPU or SwiftShader', () => {
  it('webgpu is refused before anything starts, with what to do', () => {
    expect(absent).toBeInstanceOf(UserError);
    expect(absent).toMatchObject({ code: 'machine.device', exitCode: 3 });
    expect(absent?.fix).toContain('--device cpu');
  });
});

describe.runIf(absent === undefined)('webgpu', () => {
  beforeAll(async () => {
    const rows = miniRows(24);
    await writeMiniData(folder('data'), rows);
    await writeMiniPolicy(folder('policy'), rows);
    await writeMiniEncoder(folder('encoder'), rows, 'masked');
    await writeMiniEncoder(folder('judge'), rows, 'classifier');
  });

  it.each([
    ['an adapter under dropout', { rate: 0.2, everything: false }],
    ['a whole decoder', { rate: 0, everything: true }],
  ])('gives the loss and gradients of %s as cpu does, all of it on the device', async (_, { rate, everything }) => {
    const lora = { r: 4, alpha: 8, dropout: rate, targetModules: ['q_proj', 'v_proj', 'down_proj'] };
    const { graph, loss, context } = causalGraph(TINY, everything ? {} : { lora, training: true, statistics: true });
    withGradients(graph, loss, everything ? context.weights : context.loraWeights);
    const samples = SEQUENCES.map(whole);
    const items = samples.map((sample, row) => ({ row, sequences: [sample] }));
    const feeds = weightFeeds(graph, { ...causalLossFeeds(samples, 8), ...packedDropoutFeeds(7, 1, items) });
    const { cpu, webgpu, placement } = await runOnBoth(graph, feeds);
    expectSame(webgpu, cpu);
    expectOnDevice(placement);
  });

  it('gives the loss and gradients of a DeBERTa classifier under dropout as cpu does, all of it on the device', async () => {
    const { graph, loss, context } = classificationGraph(TINY_CLASSIFIER, { rdropAlpha: 1 });
    withGradients(graph, loss, context.weights);
    const batch = classificationFeeds(TINY_CLASSIFIER, collateTexts(SEQUENCES, { padId: 0 }), [1, 0]);
    const feeds = weightFeeds(graph, { ...batch, ...dropoutFeeds(7, 1, [...SEQUENCES.keys()]) });
    const { cpu, webgpu, placement } = await runOnBoth(graph, feeds);
    expectSame(webgpu, cpu);
    expectOnDevice(placement);
  });

  it('keeps, copies and reads tensors as cpu does', async () => {
    const contents = await Promise.all(
      (['cpu', 'webgpu'] as const).map(async (device) => {
        const runtime = new Runtime({ device, threads: 1 });
        const source = await runtime.upload(tensor('float32', [3, 2], [1, 2, 3, 4, 5, 6]));
        const target = await runtime.allocate('float32', [4, 2]);
        await runtime.copy([[source, target]], [{ from: 2, to: 4, length: 4 }]);
        await runtime.copy([[target, target]], [{ from: 6, to: 0, length: 2 }]);
        await source.write(tensor('float32', [3, 2], [7, 8, 9, 10, 11, 12]));
        const graph = newGraph();
        graph.output('y', add(graph.input('x', 'float32', ['N', 2]), 1));
        const program = await runtime.compile(graph);
        await program.run({ x: source.rows(2) }, { y: target.rows(2) });
        const read = [await source.read(), await source.readRows(1, 2), await target.read()];
        // Before the 9 of 8, 9, 10, 11 come 11 and 10.
        const nine = { start: 0, place: 1, value: 9, total: 38 };
        const queries = [21, 22].map((mass) => ({ ...nine, mass }));
        const preceded = await target.precededByLess(queries, 4);
        await source.dispose();
        await runtime.close();
        return { read: read.map(({ shape, data }) => ({ shape, data: [...data] })), preceded };
      }),
    );
    expect(contents[1]).toEqual(contents[0]);
    expect(contents[0]!.read[2]!.data).toEqual([8, 9, 10, 11, 3, 4, 5, 6]);
    expect(contents[0]!.preceded).toEqual([false, true]);
  });

  it.each(Object.keys(stages) as (keyof typeof stages)[])(
    'takes the steps of %s that cpu takes',
    async (name) => {
      const [cpu, webgpu] = [await outcomeOn('cpu', name), await outcomeOn('webgpu', name)];
      expect(webgpu.metrics).toHaveLength(cpu.metrics.length);
      for (const [line, metrics] of cpu.metrics.entries()) {
        for (const [metric, value] of Object.entries(metrics)) {
          if (isMeasured(metric)) continue;
          const far = Math.abs(webgpu.metrics[line]![metric]! - value);
          expect(far, `${metric} in line ${line}`).toBeLessThanOrEqual(1e-4 * Math.max(1, Math.abs(value)));
        }
      }
      // A first update of Adam is lr·g/(|g| + 1e-8): where g is as small as that, its last digits are seen.
      for (const [key, values] of cpu.weights) {
        const apart = values.map((value, i) => Math.abs(value - webgpu.weights.get(key)![i]!));
        expect(Math.max(...apart), key).toBeLessThanOrEqual(1e-4);
      }
    },
    600_000,
  );
});
