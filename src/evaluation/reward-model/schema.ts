import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../../errors.js';
import { Classification, Interval, type ReportRewardModel } from '../report/input.js';

const share = z.number().min(0).max(1);
const count = z.int().min(0);
const classFigures = z.object({ precision: share, recall: share, f1: share, support: count });

/** `ClassificationMetrics` as JSON. */
export const classificationFigures = Classification.extend({
  f1Macro: share,
  mcc: z.number(),
  /** Class 0, then class 1. */
  perClass: z.tuple([classFigures, classFigures]),
});

/** Figures of labelled rows; every row counts once for each template that it fills. */
const judgedSet = z.object({
  /** Rows that the texts were made of. */
  rows: count,
  /** Over all texts. */
  metrics: classificationFigures,
  /** Over the texts of each template. */
  templates: z.record(z.string(), classificationFigures),
});

/** `evaluation.json` in the run folder of a reward model: what its best weights are worth. */
export const rewardModelEvaluation = z.object({
  formatVersion: z.literal(1),
  /** Optimizer steps of the weights that were kept. */
  step: count,
  /** Null where no row was held out. */
  validation: judgedSet.nullable(),
  /** Fitted on the training rows, measured on the texts of `validation`. */
  baselines: z.array(
    z.object({
      name: z.string(),
      description: z.string(),
      features: count,
      converged: z.boolean(),
      metrics: classificationFigures,
    }),
  ),
  /** What the model adds given the prompt and the length, by row; null where it was not measured. */
  added: z.object({ aucWithout: share, aucWith: share, difference: Interval }).nullable(),
  /** Looked at once, after training; null without a test file. */
  test: judgedSet.nullable(),
});
export type RewardModelEvaluation = z.output<typeof rewardModelEvaluation>;
export type JudgedSet = z.output<typeof judgedSet>;

export const EVALUATION_FILE = 'evaluation.json';

/**
 * Reads the evaluation of a reward model's run folder; undefined where there is none yet.
 *
 * @throws UserError when the file is not what `rm` writes
 */
export async function readRewardModelEvaluation(runFolder: string): Promise<RewardModelEvaluation | undefined> {
  const file = join(runFolder, EVALUATION_FILE);
  if (!existsSync(file)) return undefined;
  try {
    return rewardModelEvaluation.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch (cause) {
    throw new UserError({
      code: 'evaluation.file',
      message: "The file is not a reward model's evaluation.",
      where: file,
      fix: 'Resume the run of the reward model (duanzi rm --resume), which writes it anew.',
      cause,
    });
  }
}

/** The part of a report that shows the evaluation; undefined where nothing was measured on held-out rows. */
export function rewardModelReport(evaluation: RewardModelEvaluation): ReportRewardModel | undefined {
  const { validation, baselines, added, test } = evaluation;
  if (validation === null) {
    return test === null ? undefined : { evaluatedOn: 'test', metrics: test.metrics, baselines: [] };
  }
  return { evaluatedOn: 'validation', metrics: validation.metrics, baselines, added, test: test?.metrics };
}
