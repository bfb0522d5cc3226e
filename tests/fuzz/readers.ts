import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { checkAdapter, openAdapter } from '../../src/checkpoints/adapter.js';
import { loadTensors, openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats, readHeader } from '../../src/checkpoints/safetensors.js';
import { openTorchFile } from '../../src/checkpoints/torch/torch-file.js';
import { loadConfig } from '../../src/config/load.js';
import { readRows } from '../../src/data/read.js';
import { saveCheckpoint, latestCheckpoint, loadCheckpoint } from '../../src/runs/checkpoints.js';
import { readManifest } from '../../src/runs/manifest.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { openRunFolder } from '../../src/runs/run-folder.js';
import { readScalars } from '../../src/runs/tensorboard/reader.js';
import { loadTokenizer } from '../../src/text/load-tokenizer.js';
import { writeTinyClassifier } from '../support/tiny-encoder.js';
import { writeTinyAdapter, writeTinyModel } from '../support/tiny-model.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Something that reads files which people bring, with files that are well. */
export interface Reader {
  readonly name: string;
  /** Files, in a folder of the reader's own, that are damaged one at a time. */
  readonly files: readonly string[];
  read(): Promise<unknown>;
}

const stateSchema = z.object({ loss: z.number(), carried: z.array(z.number()) });

/** Makes every reader its files below `dir`. */
export async function makeReaders(dir: string): Promise<Reader[]> {
  const at = (...names: string[]): string => join(dir, ...names);
  for (const name of ['policy', 'adapter', 'judge', 'data', 'torch']) await mkdir(at(name), { recursive: true });
  await writeTinyModel(at('policy'));
  await writeTinyAdapter(at('adapter'));
  await writeTinyClassifier(at('judge'));
  for (const name of ['safetensors', 'config', 'tokenizer', 'word-piece']) {
    await cp(at(name === 'word-piece' ? 'judge' : 'policy'), at(name), { recursive: true });
  }
  const base = (await openModelFolder(at('policy'))).weights;

  const rows = Array.from({ length: 12 }, (_, i) => ({
    headline: `标题${i}`,
    word1: '猫',
    word2: '"包,子"',
    joke: `猫说\n包子${i}`,
    label: String(i % 2),
  }));
  const quoted = (cell: string): string => `"${cell.replaceAll('"', '""')}"`;
  const csv = [Object.keys(rows[0]!), ...rows.map((row) => Object.values(row).map(quoted))];
  await writeFile(at('data', 'rows.csv'), `\ufeff${csv.map((cells) => cells.join(',')).join('\r\n')}\r\n`);
  await writeFile(at('data', 'rows.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
  await cp(join(ROOT, 'recipes', 'nano.yaml'), at('data', 'recipe.yaml'));
  await cp(join(ROOT, 'tests/fixtures/golden/deberta_bin/mixed_f16.bin'), at('torch', 'zip.bin'));
  await cp(join(ROOT, 'tests/fixtures/golden/deberta_bin/legacy.bin'), at('torch', 'legacy.bin'));

  const run = await openRunFolder({
    ...{ out: at('run'), stage: 'sft', config: { a: 1 }, seed: 1, device: 'cpu', resume: false, fingerprints: {} },
    onEvent: () => undefined,
  });
  for (let step = 1; step <= 5; step++)
    run.emit({ type: 'metrics', step, epoch: step / 5, values: { loss: 1 / step } });
  run.emit({ type: 'sample', step: 5, label: 'headline', prompt: '标题', completion: '哈', reward: 0.5 });
  await run.finish();
  const save = (step: number): Promise<unknown> =>
    saveCheckpoint(at('checkpoint'), {
      ...{ stage: 'sft', step, state: { loss: 0.5, carried: [1, 2, 3] }, schema: stateSchema },
      write: async (folder) =>
        writeFile(join(folder, 'optimizer.safetensors'), await readFile(at('adapter', 'adapter_model.safetensors'))),
    });
  const saved = join(at('checkpoint'), 'checkpoints', 'step-2');
  await save(1);
  await save(2);

  const events = (await readdir(at('run', 'tensorboard'))).map((name) => at('run', 'tensorboard', name));
  const floats = async (file: string): Promise<void> => {
    for (const info of (await readHeader(file)).tensors.values()) await readFloats(info);
  };
  return [
    {
      name: 'safetensors',
      files: [at('safetensors', 'model.safetensors')],
      read: () => floats(at('safetensors', 'model.safetensors')),
    },
    {
      name: 'pickle',
      files: [at('torch', 'zip.bin'), at('torch', 'legacy.bin')],
      read: async () => {
        await openTorchFile(at('torch', 'zip.bin'));
        await openTorchFile(at('torch', 'legacy.bin'));
      },
    },
    {
      name: 'config',
      files: [at('config', 'config.json')],
      read: () => openModelFolder(at('config')),
    },
    {
      name: 'tokenizer',
      files: ['tokenizer', 'word-piece'].flatMap((name) =>
        ['tokenizer.json', 'tokenizer_config.json'].map((file) => at(name, file)),
      ),
      read: async () => {
        for (const name of ['tokenizer', 'word-piece']) {
          const tokenizer = await loadTokenizer(at(name));
          tokenizer.decode(tokenizer.encode('标题：猫排队买包子，笑了 abc 123'), { skipSpecialTokens: true });
        }
      },
    },
    { name: 'CSV', files: [at('data', 'rows.csv')], read: () => readRows(at('data', 'rows.csv')) },
    { name: 'JSONL', files: [at('data', 'rows.jsonl')], read: () => readRows(at('data', 'rows.jsonl')) },
    {
      name: 'recipe',
      files: [at('data', 'recipe.yaml')],
      read: () => loadConfig({ stage: 'run', files: [at('data', 'recipe.yaml')], flags: { 'data.dir': at('data') } }),
    },
    {
      name: 'adapter',
      files: [at('adapter', 'adapter_config.json'), at('adapter', 'adapter_model.safetensors')],
      read: async () => {
        const adapter = await openAdapter(at('adapter'));
        checkAdapter(adapter, base);
        await loadTensors(adapter.weights, adapter.weights.keys());
      },
    },
    {
      name: 'checkpoint',
      files: [join(saved, 'state.json'), join(saved, 'optimizer.safetensors')],
      read: async () => {
        await latestCheckpoint(at('checkpoint'));
        const checkpoint = await loadCheckpoint(saved, { stage: 'sft', schema: stateSchema });
        await floats(checkpoint.file('optimizer.safetensors'));
      },
    },
    { name: 'tfevents', files: events, read: () => Promise.resolve(readScalars(dirname(events[0]!))) },
    {
      name: 'metrics and manifest',
      files: [at('run', 'metrics.jsonl'), at('run', 'manifest.json')],
      read: async () => {
        readMetrics(at('run', 'metrics.jsonl'));
        await readManifest(at('run'));
      },
    },
  ];
}
