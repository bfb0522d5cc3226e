import { join } from 'node:path';
import { afterAll, it } from 'vitest';
import { adapterShapes, writeAdapter } from '../../../src/checkpoints/adapter.js';
import type { AdapterConfig } from '../../../src/checkpoints/adapter-config.js';
import { mergeAdapter } from '../../../src/checkpoints/merge.js';
import { openModelFolder } from '../../../src/checkpoints/model-folder.js';
import { wrap } from '../../../src/graph/tensor.js';
import { stream } from '../../../src/random.js';
import { Runtime } from '../../../src/runtime/runtime.js';
import { golden } from '../../support/golden.js';
import { temporaryFolder } from '../support/folder.js';
import { compareLogits } from '../support/logits.js';
import { python } from '../support/python.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const model = golden('qwen3/model');

/** An adapter of ours with random factors, and with random tensors where it holds modules whole. */
async function writeRandomAdapter(base: string, dir: string, settings: Partial<AdapterConfig>): Promise<void> {
  const config: AdapterConfig = {
    r: 4,
    loraAlpha: 8,
    loraDropout: 0.05,
    targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    useRslora: false,
    taskType: 'CAUSAL_LM',
    baseModelNameOrPath: base,
    ...settings,
  };
  const random = stream(5, 'adapter');
  const { weights } = await openModelFolder(base);
  const shapes = new Map(adapterShapes(weights, config));
  for (const [name, { shape }] of weights) {
    if (config.modulesToSave?.includes(name.split('.')[0]!) === true) shapes.set(`base_model.model.${name}`, { shape });
  }
  const tensors = Array.from(shapes, ([name, { shape }]) => {
    const size = shape.reduce((product, dim) => product * dim, 1);
    return [
      name,
      wrap(
        'float32',
        shape,
        Float32Array.from({ length: size }, () => (random.uniform() - 0.5) / 2),
      ),
    ] as const;
  });
  await writeAdapter(dir, { config, tensors: new Map(tensors) });
}

const classifiers = {
  'Qwen3 with a head': { model: 'qwen3_classifier', targetModules: ['q_proj', 'v_proj', 'down_proj'], head: ['score'] },
  'DeBERTa-v2': {
    model: 'deberta',
    targetModules: ['query_proj', 'value_proj', 'dense'],
    head: ['pooler', 'classifier'],
  },
} as const;

it.each([
  ['all seven projections', {}],
  ['rank-stabilised on two projections', { r: 2, useRslora: true, targetModules: ['o_proj', 'gate_proj'] }],
] as const)('PEFT loads our adapter: %s', async (title, settings) => {
  const folder = await temporaryFolder();
  const adapter = join(folder, 'adapter');
  await writeRandomAdapter(model, adapter, settings);
  const check = `An adapter that we saved: ${title}`;
  await compareLogits(runtime, { check, peer: 'PEFT', head: 'causal', model, adapter, folder });
});

it('an adapter that PEFT saved gives the same logits here', async () => {
  const folder = await temporaryFolder();
  const adapter = join(folder, 'adapter');
  await python('make_adapter', 'causal', model, adapter, 'q_proj', 'v_proj', 'down_proj');
  const check = 'An adapter that PEFT saved: rank-stabilised, three projections';
  await compareLogits(runtime, { check, peer: 'PEFT', head: 'causal', model, adapter, folder });
});

it.each(Object.entries(classifiers))(
  'an adapter that holds the head of a classifier means the same here and to PEFT: %s',
  async (title, { model: name, targetModules, head }) => {
    const folder = await temporaryFolder();
    const [ours, theirs, base] = [join(folder, 'ours'), join(folder, 'theirs'), golden(`${name}/model`)];
    const same = { peer: 'PEFT', head: 'classifier', model: base, folder } as const;
    await writeRandomAdapter(base, ours, { taskType: 'SEQ_CLS', targetModules, modulesToSave: head });
    await compareLogits(runtime, { ...same, check: `An adapter with a head that we saved: ${title}`, adapter: ours });
    await python('make_adapter', 'classifier', base, theirs, ...targetModules);
    await compareLogits(runtime, {
      ...same,
      check: `An adapter with a head that PEFT saved: ${title}`,
      adapter: theirs,
    });
  },
);

it('transformers loads a model that our adapter was merged into', async () => {
  const folder = await temporaryFolder();
  const [adapter, merged] = [join(folder, 'adapter'), join(folder, 'merged')];
  await writeRandomAdapter(model, adapter, {});
  await mergeAdapter(model, adapter, merged, { dtype: 'float32' });
  const check = 'A model folder that we merged an adapter into';
  await compareLogits(runtime, { check, peer: 'transformers', head: 'causal', model: merged, folder });
});
