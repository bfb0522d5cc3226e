import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, it } from 'vitest';
import { openModelFolder } from '../../../src/checkpoints/model-folder.js';
import { Runtime } from '../../../src/runtime/runtime.js';
import { temporaryFolder } from '../support/folder.js';
import { compareLogits } from '../support/logits.js';
import { compareTokenizers } from '../support/tokenizers.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const assets = fileURLToPath(new URL('../../../assets/', import.meta.url));
const models = readdirSync(assets).filter((name) => existsSync(join(assets, name, 'config.json')));

it.each(models)('transformers loads the shipped model %s', async (name) => {
  const folder = await temporaryFolder();
  const model = join(assets, name);
  const { config } = await openModelFolder(model);
  const head = config.kind === 'causal' ? 'causal' : 'masked';
  const check = `The shipped model ${name}`;
  await compareLogits(runtime, { check, peer: 'transformers', head, model, folder });
  await compareTokenizers(`${check}: its tokenizer`, model, folder);
});
