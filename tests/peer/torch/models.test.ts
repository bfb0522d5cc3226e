import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { quantizeModel } from '../../../src/checkpoints/merge.js';
import { loadTensors, openModelFolder } from '../../../src/checkpoints/model-folder.js';
import { writeModelFolder } from '../../../src/checkpoints/write-model-folder.js';
import { wrap } from '../../../src/graph/tensor.js';
import type { WeightDtype } from '../../../src/models/config/fields.js';
import { stream } from '../../../src/random.js';
import { Runtime } from '../../../src/runtime/runtime.js';
import { golden } from '../../support/golden.js';
import { temporaryFolder } from '../support/folder.js';
import { compareLogits, type Head } from '../support/logits.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

/** A model like a recorded one, its weights scaled by chance, so that no recorded file can be what is read. */
async function writeVariant(from: string, to: string, dtype: WeightDtype): Promise<void> {
  const folder = await openModelFolder(from);
  const tensors = await loadTensors(folder.weights, folder.weights.keys());
  for (const [name, tensor] of tensors) {
    const random = stream(3, 'variant', name);
    tensors.set(
      name,
      wrap(
        'float32',
        tensor.shape,
        tensor.data.map((value) => value * (0.5 + random.uniform())),
      ),
    );
  }
  await writeModelFolder(to, { config: folder.config, tensors, dtype });
}

const cases: readonly (readonly [string, string, Head, WeightDtype])[] = [
  ['Qwen3, tied', 'qwen3', 'causal', 'float32'],
  ['Qwen3, tied', 'qwen3', 'causal', 'bfloat16'],
  ['Qwen3, untied', 'qwen3_untied', 'causal', 'float32'],
  ['Qwen3, untied', 'qwen3_untied', 'causal', 'float16'],
  ['DeBERTa-v2 classifier', 'deberta', 'classifier', 'float32'],
  ['DeBERTa-v2 classifier with convolution', 'deberta/conv', 'classifier', 'float32'],
];

it.each(cases)('transformers loads our model folder: %s (%s, %s, %s)', async (title, name, head, dtype) => {
  const folder = await temporaryFolder();
  const model = join(folder, 'model');
  await writeVariant(golden(`${name}/model`), model, dtype);
  expect((await openModelFolder(model)).config.dtype).toBe(dtype);
  await compareLogits(runtime, {
    check: `A model folder that we wrote: ${title}, ${dtype}`,
    peer: 'transformers',
    head,
    model,
    folder,
  });
});

it.each([
  ['NF4, nested', { kind: 'nf4', nested: true }],
  ['FP4', { kind: 'fp4', nested: false }],
] as const)('transformers loads our model folder in 4 bits: %s', async (title, quantization) => {
  const folder = await temporaryFolder();
  const [whole, model] = [join(folder, 'whole'), join(folder, 'model')];
  await writeVariant(golden('nf4/whole_rows/model'), whole, 'float32');
  await quantizeModel(whole, model, quantization, { dtype: 'bfloat16' });
  expect((await openModelFolder(model)).quantized.size).toBe(14);
  const check = `A model folder that we wrote: Qwen3 in 4 bits, ${title}`;
  await compareLogits(runtime, { check, peer: 'bitsandbytes', head: 'causal', model, folder });
});
