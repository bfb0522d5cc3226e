import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { openModelFolder } from './checkpoints/model-folder.js';
import type { RunConfig } from './config/stages.js';
import { UserError } from './errors.js';
import { writeRunReport } from './evaluation/run-report.js';
import { openPolicy } from './generation/policy.js';
import { localModel } from './hub/local-model.js';
import type { StageContext } from './runs/events.js';
import { errnoOf, writeFault } from './runs/file-faults.js';
import { recoverLeftovers } from './runs/leftovers.js';
import { lockFolder } from './runs/lock.js';
import { changedKeys, isFinished, readManifest } from './runs/manifest.js';
import { STAGE_FOLDERS } from './runs/stage-folders.js';
import { evaluateModels, type Candidate } from './stages/evaluate.js';
import { grpo } from './stages/grpo.js';
import { rm } from './stages/rm.js';
import { sft } from './stages/sft.js';
import { classifierConfig } from './training/classifier-start.js';
import { loadRows } from './training/rows.js';

/**
 * The whole pipeline: SFT → reward model → GRPO → texts of all three models on unseen prompts → report. A finished stage
 * is not repeated, one that was interrupted is resumed.
 *
 * @returns the folder that holds `sft/`, `rm/`, `grpo/`, `evaluation/` and the report
 */
export async function runPipeline(asked: RunConfig, context: StageContext): Promise<string> {
  await refuseForeign(asked.out);
  const models = {
    policy: await localModel(asked.models.policy, context),
    reward: await localModel(asked.models.reward, context),
  };
  const config = { ...asked, models };
  if (!(await isFinished(path.join(config.out, 'sft')))) await checkInputs(config);
  const lock = lockFolder(config.out);
  try {
    await recoverLeftovers(config.out);
    return await runStages(config, context);
  } finally {
    lock.release();
  }
}

async function runStages(config: RunConfig, context: StageContext): Promise<string> {
  const { models, out, seed, device, threads, data, memory, force } = config;
  const folder = (name: string): string => path.join(out, name);

  /** Runs a stage in its folder, unless it is finished there. */
  const once = async <Config extends object>(
    name: string,
    settings: Config,
    stage: (config: Config & Common, context: StageContext) => Promise<string>,
  ): Promise<void> => {
    context.signal?.throwIfAborted();
    const before = await readManifest(folder(name));
    const whole = {
      ...settings,
      seed,
      device,
      threads,
      data,
      memory,
      force,
      out: folder(name),
      resume: before !== undefined,
    };
    if (before === undefined || before.finishedAt === null) {
      await stage(whole, context);
    } else {
      // Taken over and freed: it is still there where the process died once the stage was finished.
      lockFolder(folder(name)).release();
      warnFinished(
        folder(name),
        changedKeys(before.config, {
          ...whole,
          resume: before.config['resume'],
          force: before.config['force'],
          memory: before.config['memory'],
        }),
        context,
      );
    }
  };
  type Common = Pick<RunConfig, 'seed' | 'device' | 'threads' | 'data' | 'out' | 'resume' | 'memory' | 'force'>;

  const adapter = path.join(folder('sft'), 'adapter');
  const reward = path.join(folder('rm'), 'model');
  const candidates: Candidate[] = [
    { name: 'base', model: models.policy },
    { name: 'SFT', model: models.policy, adapter },
    { name: 'GRPO', model: path.join(folder('grpo'), 'policy'), adapter: path.join(folder('grpo'), 'adapter') },
  ];
  await once(
    'sft',
    { model: models.policy, quantization: config.quantization, lora: config.lora, sft: config.sft },
    sft,
  );
  await once('rm', { model: models.reward, rm: config.rm }, rm);
  const { quantization, lora } = config;
  await once('grpo', { model: models.policy, quantization, adapter, rm: reward, lora, grpo: config.grpo }, grpo);
  await once(
    'evaluation',
    { candidates, quantization, rm: reward, generate: config.generate, evaluate: config.evaluate },
    evaluateModels,
  );
  await writeRunReport(out);
  return out;
}

const REPORTS = ['report.md', 'report.html'];

/** A pipeline goes on in its own folder and starts in an empty one; anything else stays untouched. */
async function refuseForeign(out: string): Promise<void> {
  const names = await namesIn(out);
  const own = new Set<string>();
  for (const name of STAGE_FOLDERS) {
    const begun = (await readManifest(path.join(out, name))) !== undefined;
    if (begun) for (const each of [name, ...REPORTS]) own.add(each);
    else if (names.includes(name) && (await namesIn(path.join(out, name))).length === 0) own.add(name);
  }
  const foreign = names.filter((name) => !own.has(name));
  if (foreign.length === 0) return;
  throw new UserError({
    code: 'run.not-empty',
    message: `The output folder holds something that is not of a run: ${foreign.slice(0, 3).join(', ')}.`,
    where: out,
    fix: 'Choose another --out.',
  });
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith('.'));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw writeFault(error, folder);
  }
}

/** What a later stage would refuse is refused before the first begins. */
async function checkInputs({ models, data, rm: { testFile } }: RunConfig): Promise<void> {
  await loadRows(data, ['sft_train', 'rm_train'], 'required', { testFile });
  await openPolicy(models.policy);
  classifierConfig(await openModelFolder(models.reward), undefined);
}

function warnFinished(folder: string, changed: readonly string[], context: StageContext): void {
  const note = changed.length === 0 ? '' : ` Its settings were others, and stay: ${changed.join(', ')}.`;
  context.onEvent({
    type: 'warning',
    code: 'run.finished',
    message: `${folder} is finished and is not repeated.${note}`,
  });
}
