/**
 * `npm run forms -- DATA OUT`: the validation loss of SFT and of the reward model after 300 steps in each form of the base
 * and each precision of products, on the shipped nano models and on ones with planted outlier channels, as a table of
 * docs/performance.md. DATA is the folder of the published rows, OUT keeps the runs: what is there is not run again.
 */
import { existsSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { loadConfig } from '../../src/config/index.js';
import type { StageContext } from '../../src/runs/events.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { rm } from '../../src/stages/rm.js';
import { sft } from '../../src/stages/sft.js';
import { PLANTINGS, plantOutliers } from './plant-outliers.js';

const STEPS = 300;
const STAGES = {
  sft: { model: 'assets/nano-qwen3', key: 'quantization', forms: ['float32', 'int8', 'nf4'] },
  rm: { model: 'assets/nano-deberta', key: 'rm.precision', forms: ['float32', 'int8'] },
} as const;
type Stage = keyof typeof STAGES;

const [data, out] = process.argv.slice(2).map((given) => resolve(given));
if (data === undefined || out === undefined) throw new Error('npm run forms -- DATA OUT');
await mkdir(out, { recursive: true });
const quiet: StageContext = { onEvent: () => undefined };

/** The model with a planting, made once; as shipped without one. */
async function modelWith(stage: Stage, planting: string): Promise<string> {
  const { model } = STAGES[stage];
  const dir = join(out!, `${stage}-model-${planting}`);
  if (planting === 'nothing') return model;
  if (!existsSync(dir)) await rename(await plantOutliers(model, out!, planting), dir);
  return dir;
}

async function lossOf(stage: Stage, planting: string, form: string): Promise<number> {
  const run = join(out!, `${stage}-${planting}-${form}`);
  const flags = {
    model: await modelWith(stage, planting),
    'data.dir': data,
    [STAGES[stage].key]: form,
    [`${stage}.maxSteps`]: STEPS,
    [`${stage}.evalSteps`]: STEPS,
    [`${stage}.saveSteps`]: STEPS,
    out: run,
    threads: 1,
  };
  const files = ['recipes/nano.yaml'];
  if (!existsSync(join(run, 'report.html'))) {
    const resume = existsSync(run);
    if (stage === 'sft') {
      const own = { ...flags, 'sft.sampleSteps': STEPS, resume };
      await sft(await loadConfig({ stage, files, flags: own }), quiet);
    } else {
      const own = { ...flags, 'rm.baselines': false, resume };
      await rm(await loadConfig({ stage, files, flags: own }), quiet);
    }
  }
  const rows = readMetrics(join(run, 'metrics.jsonl'));
  return rows.find(({ step, values }) => step === STEPS && 'eval_loss' in values)!.values['eval_loss']!;
}

console.log(
  `| stage | planted in | form | validation loss after ${STEPS} steps | of float32's |\n|---|---|---|---|---|`,
);
for (const stage of Object.keys(STAGES) as Stage[]) {
  for (const planting of ['nothing', ...Object.keys(PLANTINGS)]) {
    let first: number | undefined;
    for (const form of STAGES[stage].forms) {
      const loss = await lossOf(stage, planting, form);
      first ??= loss;
      console.log(`| ${stage} | ${planting} | ${form} | ${loss.toFixed(4)} | ${((100 * loss) / first).toFixed(2)} % |`);
    }
  }
}
