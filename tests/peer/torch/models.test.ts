import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
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
