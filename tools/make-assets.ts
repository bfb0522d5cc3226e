/**
 * Makes the nano bases that ship in assets/: `npm run assets -- DATA_DIR [RUNS_DIR [NAME]]`.
 *
 * Pretrains both models by their recipes on the training rows of DATA_DIR (runs that are finished in RUNS_DIR are taken as
 * they are, unfinished ones resumed), stores them in bfloat16, and writes beside each how it was made.
 */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadTensors, openModelFolder } from '../src/checkpoints/model-folder.js';
import { writeModelFolder } from '../src/checkpoints/write-model-folder.js';
import { loadConfig } from '../src/config/index.js';
import { writeFileAtomic, writeFolderAtomic } from '../src/runs/atomic.js';
import { isFinished, readManifest } from '../src/runs/manifest.js';
import { readMetrics } from '../src/runs/metrics.js';
import { pretrain } from '../src/stages/pretrain.js';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

const assets = [
  { name: 'nano-qwen3', recipe: 'recipes/nano-base.yaml', run: 'nano-base' },
  { name: 'nano-deberta', recipe: 'recipes/nano-encoder.yaml', run: 'nano-encoder' },
] as const;

const [data, runs = path.join(root, 'runs'), only] = process.argv.slice(2);
if (data === undefined) {
  process.stderr.write('usage: npm run assets -- DATA_DIR [RUNS_DIR [NAME]]\n');
  process.exit(2);
}

for (const { name, recipe, run } of assets) {
  if (only !== undefined && only !== name) continue;
  const out = path.join(path.resolve(runs), run);
  if (!(await isFinished(out))) {
    const config = await loadConfig({
      stage: 'pretrain',
      files: [path.join(root, recipe)],
      sets: [`data.dir=${path.resolve(data)}`],
      flags: { out, resume: existsSync(out) },
    });
    await pretrain(config, {
      onEvent: (event) => {
        if (event.type === 'metrics')
          process.stderr.write(`${name} step ${event.step} ${JSON.stringify(event.values)}\n`);
      },
    });
  }
  await ship(name, recipe, out);
}

async function ship(name: string, recipe: string, out: string): Promise<void> {
  const made = path.join(out, 'model');
  const { config, weights, generationConfig } = await openModelFolder(made);
  const tensors = await loadTensors(weights, weights.keys());
  const manifest = await readManifest(out);
  if (manifest === undefined) throw new Error(`${out} has no manifest`);
  const evaluations = readMetrics(path.join(out, 'metrics.jsonl')).filter(({ values }) => 'eval_loss' in values);
  const best = evaluations.reduce((a, b) => (b.values['eval_loss']! < a.values['eval_loss']! ? b : a));
  const { data: dataConfig, pretrain: settings } = manifest.config as {
    data: { splitSeed: number; validationFraction: number };
    pretrain: unknown;
  };
  const provenance = {
    command: 'npm run assets -- DATA_DIR',
    recipe,
    data: {
      files: manifest.fingerprints,
      splitSeed: dataConfig.splitSeed,
      validationFraction: dataConfig.validationFraction,
      used: 'training rows only',
    },
    seed: manifest.seed,
    threads: manifest.threads,
    versions: manifest.versions,
    settings,
    kept: { step: best.step, ...best.values },
    storedAs: 'bfloat16',
  };
  const target = path.join(root, 'assets', name);
  await mkdir(path.dirname(target), { recursive: true });
  await writeFolderAtomic(target, async (folder) => {
    await writeModelFolder(folder, {
      config,
      tensors,
      dtype: 'bfloat16',
      tokenizerFrom: made,
      ...(generationConfig === undefined ? {} : { generationConfig }),
    });
    await writeFileAtomic(path.join(folder, 'provenance.json'), `${JSON.stringify(provenance, null, 2)}\n`);
  });
  process.stderr.write(`assets/${name}: step ${best.step}, validation loss ${best.values['eval_loss']!.toFixed(4)}\n`);
}
