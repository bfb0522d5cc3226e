import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, it } from 'vitest';
import { loadConfig } from '../../../src/config/load.js';
import { Runtime } from '../../../src/runtime/runtime.js';
import { pretrain } from '../../../src/stages/pretrain.js';
import { rm } from '../../../src/stages/rm.js';
import { sft } from '../../../src/stages/sft.js';
import { temporaryFolder } from '../support/folder.js';
import { compareLogits } from '../support/logits.js';
import { compareTokenizers } from '../support/tokenizers.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const dataDir = fileURLToPath(new URL('../../../assets/mini-humor', import.meta.url));
const context = { onEvent: (): void => undefined };
const small = { 'data.dir': dataDir, threads: 1 };
const size = { vocabSize: 900, hiddenSize: 32, layers: 2, heads: 2, intermediateSize: 48, maxSteps: 2, batchSize: 4 };
const sized = Object.fromEntries(Object.entries(size).map(([key, value]) => [`pretrain.${key}`, value]));

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
});

async function base(objective: 'causal' | 'masked'): Promise<string> {
  const flags = { ...small, ...sized, 'pretrain.objective': objective, out: join(folder, objective) };
  return join(await pretrain(await loadConfig({ stage: 'pretrain', flags }), context), 'model');
}

it('what pretrain and sft leave is a model and an adapter to transformers and PEFT', async () => {
  const model = await base('causal');
  const check = 'The causal model that `pretrain` left';
  await compareLogits(runtime, { check, peer: 'transformers', head: 'causal', model, folder });
  await compareTokenizers(`${check}: its tokenizer`, model, folder);

  const flags = { ...small, model, out: join(folder, 'sft'), 'sft.maxSteps': 2, 'sft.samples': 0, 'lora.r': 4 };
  const adapter = join(await sft(await loadConfig({ stage: 'sft', flags }), context), 'adapter');
  const tuned = 'The adapter that `sft` left on it';
  await compareLogits(runtime, { check: tuned, peer: 'PEFT', head: 'causal', model, adapter, folder });
});

it('what masked pretraining and rm leave is a model, a classifier and an adapter with a head', async () => {
  const encoder = await base('masked');
  const check = 'The encoder that `pretrain` left';
  await compareLogits(runtime, { check, peer: 'transformers', head: 'masked', model: encoder, folder });
  await compareTokenizers(`${check}: its tokenizer`, encoder, folder);

  const train = async (model: string, own: Record<string, unknown>, name: string): Promise<string> => {
    const few = { 'rm.maxSteps': 6, 'rm.maxLength': 64, 'rm.learningRate': 0.03, 'rm.baselines': false };
    const flags = { ...small, ...few, ...own, model, out: join(folder, name) };
    return rm(await loadConfig({ stage: 'rm', flags }), context);
  };
  const model = join(await train(encoder, {}, 'rm'), 'model');
  const whole = 'The reward model that `rm` left';
  await compareLogits(runtime, { check: whole, peer: 'transformers', head: 'classifier', model, folder });

  const out = await train(model, { 'rm.lora.r': 4 }, 'rm-lora');
  const adapter = join(out, 'adapter');
  const tuned = 'The adapter and head that `rm` left on it';
  await compareLogits(runtime, { check: tuned, peer: 'PEFT', head: 'classifier', model, adapter, folder });
});
