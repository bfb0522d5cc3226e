import { join } from 'node:path';
import { afterAll, it } from 'vitest';
import { adapterShapes, openAdapter, writeAdapter } from '../../../src/checkpoints/adapter.js';
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

/** An adapter of ours with both factors random. */
async function writeRandomAdapter(dir: string, settings: Partial<AdapterConfig>): Promise<void> {
  const config: AdapterConfig = {
    r: 4,
    loraAlpha: 8,
    loraDropout: 0.05,
    targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    useRslora: false,
    taskType: 'CAUSAL_LM',
    baseModelNameOrPath: model,
    ...settings,
  };
  const random = stream(5, 'adapter');
  const shapes = adapterShapes((await openModelFolder(model)).weights, config);
  const tensors = Array.from(shapes, ([name, { shape }]) => {
    const data = Float32Array.from({ length: shape[0]! * shape[1]! }, () => (random.uniform() - 0.5) / 2);
    return [name, wrap('float32', shape, data)] as const;
  });
  await writeAdapter(dir, { config, tensors: new Map(tensors) });
}

it.each([
  ['all seven projections', {}],
  ['rank-stabilised on two projections', { r: 2, useRslora: true, targetModules: ['o_proj', 'gate_proj'] }],
] as const)('PEFT loads our adapter: %s', async (title, settings) => {
  const folder = await temporaryFolder();
  const adapter = join(folder, 'adapter');
  await writeRandomAdapter(adapter, settings);
  const check = `An adapter that we saved: ${title}`;
  await compareLogits(runtime, { check, peer: 'PEFT', head: 'causal', model, adapter, folder });
});

it('an adapter that PEFT saved gives the same logits here', async () => {
  const folder = await temporaryFolder();
  const adapter = join(folder, 'adapter');
  await python('make_adapter', model, adapter);
  await openAdapter(adapter);
  const check = 'An adapter that PEFT saved: rank-stabilised, three projections';
  await compareLogits(runtime, { check, peer: 'PEFT', head: 'causal', model, adapter, folder });
});

it('transformers loads a model that our adapter was merged into', async () => {
  const folder = await temporaryFolder();
  const [adapter, merged] = [join(folder, 'adapter'), join(folder, 'merged')];
  await writeRandomAdapter(adapter, {});
  await mergeAdapter(model, adapter, merged, { dtype: 'float32' });
  const check = 'A model folder that we merged an adapter into';
  await compareLogits(runtime, { check, peer: 'transformers', head: 'causal', model: merged, folder });
});
