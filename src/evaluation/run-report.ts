import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { z } from 'zod';
import { UserError } from '../errors.js';
import { writeFileAtomic } from '../runs/atomic.js';
import { readLines } from '../runs/json-lines.js';
import { readManifest, type Manifest } from '../runs/manifest.js';
import { readAlarms } from './alarms.js';
import { characters } from '../text/characters.js';
import { comparisonSchema, textRecord, type Comparison, type TextRecord } from './compare.js';
import { readRewardModelEvaluation, rewardModelReport } from './reward-model/schema.js';
import type { ReportInput } from './report/input.js';
import { renderHtml } from './report/html/page.js';
import { parseReportInput } from './report/input.js';
import { renderMarkdown } from './report/markdown.js';
import { readMetricSeries } from './report/metric-series.js';
import { stageCharts } from './report/stage-charts.js';

const SUMMARIES: Readonly<Record<string, string>> = {
  pretrain: 'A base model from scratch, all parameters learning.',
  sft: 'Supervised fine-tuning: a low-rank adapter learns to continue a prompt with a joke and to end it.',
  rm: 'The reward model: a classifier learns to tell humorous texts from others.',
  dpo: 'Direct preference optimisation: a new adapter learns which of two texts is preferred, held to the model that it starts from.',
  evaluate: 'Texts to unseen prompts, rewarded by the reward model.',
  grpo: 'Group relative policy optimisation: a new adapter learns from the reward model, held back by a KL to the SFT model.',
};

const EXPECTATION =
  'A nano model of a few million parameters writes text that looks like Chinese and ends by itself; it does not write good jokes. ' +
  'What this run shows is the machinery at work: losses that fall, a reward that rises on unseen prompts, and how much of that rise is mere length. ' +
  'For jokes, give the same recipe a real base model.';

/** How many prompts are shown with the texts of all models side by side. */
const SHOWN_PROMPTS = 8;
/** A model with fewer parameters than this is told what not to expect. */
const NANO_FOLDER = /nano/i;

/**
 * Writes `report.md` and `report.html` of a run: of one stage's folder, or of a pipeline's folder with all of its stages.
 *
 * @returns the path of `report.html`
 * @throws UserError when the folder holds no run, or a file of it is damaged
 */
export async function writeRunReport(out: string): Promise<string> {
  const folders = [out, ...['pretrain', 'sft', 'rm', 'grpo'].map((name) => path.join(out, name))];
  const stages: { folder: string; manifest: Manifest }[] = [];
  for (const folder of folders) {
    const manifest = await readManifest(folder);
    if (manifest !== undefined) stages.push({ folder, manifest });
  }
  if (stages.length === 0) {
    throw new UserError({
      code: 'report.no-run',
      message: 'The folder holds no run: there is no manifest.json in it or in its sft, rm and grpo folders.',
      where: out,
      fix: 'Give the folder that --out named.',
    });
  }
  const evaluation = stages[0]!.manifest.stage === 'evaluate' ? out : path.join(out, 'evaluation');
  const comparison = await readComparison(evaluation);
  const texts = readTexts(evaluation);
  const rewardModel = await readRewardModel(stages.find(({ manifest }) => manifest.stage === 'rm')?.folder);
  const input: ReportInput = {
    title: stages.length === 1 ? `duanzi ${stages[0]!.manifest.stage}` : 'duanzi: from CSV to jokes',
    createdAt: new Date().toISOString(),
    ...(stages.some(({ manifest }) => usesNano(manifest)) ? { expectation: EXPECTATION } : {}),
    stages: stages.map(({ folder, manifest }) => stageOf(folder, manifest)),
    ...(rewardModel === undefined ? {} : { rewardModel }),
    ...(comparison === undefined ? {} : { reward: rewardOf(comparison, texts), generators: generatorsOf(comparison) }),
    generations: generationsOf(texts),
    settings: Object.fromEntries(stages.map(({ manifest }) => [manifest.stage, settingsOf(manifest)])),
    versions: versionsOf(stages[0]!.manifest),
  };
  const report = parseReportInput(input);
  await writeFileAtomic(path.join(out, 'report.md'), renderMarkdown(report));
  const html = path.join(out, 'report.html');
  await writeFileAtomic(html, await renderHtml(report));
  return html;
}

const usesNano = ({ config }: Manifest): boolean =>
  typeof config['model'] === 'string' && NANO_FOLDER.test(config['model']);

function stageOf(
  folder: string,
  { stage, startedAt, finishedAt, resumedAt }: Manifest,
): NonNullable<ReportInput['stages']>[number] {
  // A resumed run's clock includes the time that it lay still.
  const seconds =
    finishedAt === null || resumedAt.length > 0 ? undefined : (Date.parse(finishedAt) - Date.parse(startedAt)) / 1000;
  return {
    name: stage,
    ...(SUMMARIES[stage] === undefined ? {} : { summary: SUMMARIES[stage] }),
    ...(seconds === undefined ? {} : { seconds }),
    alarms: readAlarms(folder),
    charts: stageCharts(readMetricSeries(path.join(folder, 'metrics.jsonl'))),
  };
}

async function readComparison(folder: string): Promise<Comparison | undefined> {
  const file = path.join(folder, 'evaluation.json');
  return existsSync(file) ? parseOrRefuse(comparisonSchema, await readFile(file, 'utf8'), file) : undefined;
}

function readTexts(folder: string): TextRecord[] {
  const file = path.join(folder, 'texts.jsonl');
  return Array.from(readLines(file), ({ text, number }) => parseOrRefuse(textRecord, text, `${file}:${number}`));
}

function parseOrRefuse<T>(schema: z.ZodType<T>, text: string, where: string): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new UserError({
      code: 'evaluation.file',
      message: 'This is not what an evaluation writes.',
      where,
      fix: 'Restore the file, or remove the evaluation folder and run again.',
      cause,
    });
  }
}

async function readRewardModel(folder: string | undefined): Promise<ReportInput['rewardModel']> {
  const evaluation = folder === undefined ? undefined : await readRewardModelEvaluation(folder);
  return evaluation === undefined ? undefined : rewardModelReport(evaluation);
}

/** The comparison before → after GRPO, which is the last step of training. */
function rewardOf({ models, steps }: Comparison, texts: readonly TextRecord[]): NonNullable<ReportInput['reward']> {
  const last = steps.at(-1);
  const only = models[0]!.name;
  return {
    models: models.map(({ name, reward }) => ({ name, mean: reward })),
    before: last?.before ?? only,
    after: last?.after ?? only,
    difference: last?.difference ?? models[0]!.reward,
    ...(last === undefined ? {} : { length: last.length }),
    samples: models.map(({ name }) => ({
      model: name,
      points: texts
        .filter(({ model }) => model === name)
        .map(({ completion, reward }) => ({ length: characters(completion).length, reward })),
    })),
  };
}

const generatorsOf = ({ models }: Comparison): NonNullable<ReportInput['generators']> =>
  models.map(({ name, eosShare, summary }) => ({ name, eosShare, ...summary }));

/** The first prompts with one text of each model. */
function generationsOf(texts: readonly TextRecord[]): NonNullable<ReportInput['generations']> {
  const shown = [...new Set(texts.map(({ prompt }) => prompt))].slice(0, SHOWN_PROMPTS);
  return shown.map((prompt) => ({
    prompt,
    texts: texts
      .filter((record) => record.prompt === prompt && record.sample === 0)
      .map(({ model, completion, reward, finishReason }) => ({ model, text: completion, reward, finishReason })),
  }));
}

/** The stage's own section and what all stages share, as the report's tables show it. */
function settingsOf({ config, seed, threads, device }: Manifest): Record<string, unknown> {
  const sections = Object.entries(config).flatMap(([name, value]) =>
    typeof value === 'object' && value !== null
      ? Object.entries(value).map(([key, inner]) => [`${name}.${key}`, inner] as const)
      : [],
  );
  return { seed, threads, device, ...Object.fromEntries(sections) };
}

const versionsOf = ({ versions }: Manifest): Record<string, string> =>
  Object.fromEntries(
    Object.entries(versions).flatMap(([name, version]) => (version === null ? [] : [[name, version]])),
  );
