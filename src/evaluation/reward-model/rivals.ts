import { completionOf, type Row } from '../../data/row.js';
import { placesOf, promptsOf, type Prompt, type Templates } from '../../data/templates.js';
import { addedValue } from '../baselines/added-value.js';
import { runBaselines, type BaselineItem, type BaselineOptions } from '../baselines/baselines.js';
import { characters } from '../../text/characters.js';
import type { JudgedText } from './judge.js';
import type { RewardModelEvaluation } from './schema.js';

export interface RivalsInput extends Pick<BaselineOptions, 'onProgress' | 'signal'> {
  readonly train: readonly Row[];
  readonly validation: readonly Row[];
  readonly templates: Templates;
  /** The texts of the validation rows, with the reward model's P(label = 1). */
  readonly texts: readonly JudgedText[];
  readonly probabilities: ArrayLike<number>;
  readonly seed: number;
}

/**
 * The baselines, fitted on the training rows and measured on the very texts that the reward model is measured on, and
 * what the reward model adds for somebody who knows the prompt and the length. That is taken by row, with the mean of a
 * row's logits, because texts of one row are not independent.
 */
export async function compareWithBaselines(
  input: RivalsInput,
): Promise<Pick<RewardModelEvaluation, 'baselines' | 'added'>> {
  const { texts, probabilities, seed, signal } = input;
  const itemOf = itemMaker(input.templates);
  const rows = input.validation.map(itemOf);
  const results = await runBaselines({
    train: input.train.map(itemOf),
    validation: texts.map(({ row, template }) => {
      const { prompt } = rows[row]!.prompts.find((each) => each.template === template)!;
      return { ...rows[row]!, inputs: [prompt + rows[row]!.text] };
    }),
    ...(input.onProgress && { onProgress: input.onProgress }),
    signal,
  });
  const textsOf = new Map<number, number[]>();
  for (const [i, { row }] of texts.entries()) textsOf.set(row, [...(textsOf.get(row) ?? []), i]);
  const judged = [...textsOf.keys()];
  const firstText = judged.map((row) => textsOf.get(row)![0]!);
  const promptScores = results.find(({ name }) => name === 'prompt')!.scores;
  const added = await addedValue({
    labels: judged.map((row) => rows[row]!.label),
    promptScores: firstText.map((i) => promptScores[i]!),
    lengths: judged.map((row) => characters(rows[row]!.text).length),
    scores: judged.map((row) => meanProbability(textsOf.get(row)!.map((i) => probabilities[i]!))),
    seed,
    signal,
  });
  const baselines = results.map(({ name, description, features, converged, metrics }) => ({
    name,
    description,
    features,
    converged,
    metrics,
  }));
  return { baselines, added };
}

/** What the baselines see of a row: the columns that prompts are made of, the prompts, and the text. */
function itemMaker(templates: Templates): (row: Row) => BaselineItem & { readonly prompts: readonly Prompt[] } {
  const places = [...new Set(Object.values(templates).flatMap(placesOf))];
  return (row) => {
    const text = completionOf(row);
    const prompts = promptsOf(row, templates);
    return {
      context: places.map((place) => row.fields[place] ?? '').filter((value) => value.trim() !== ''),
      text,
      prompts,
      inputs: prompts.map(({ prompt }) => prompt + text),
      label: row.label!,
    };
  };
}

/** The probability whose logit is the mean of the logits. */
function meanProbability(probabilities: readonly number[]): number {
  const clipped = probabilities.map((p) => Math.min(1 - 1e-12, Math.max(1e-12, p)));
  const logit = clipped.reduce((total, p) => total + Math.log(p / (1 - p)), 0) / clipped.length;
  return 1 / (1 + Math.exp(-logit));
}
