import { UserError } from '../../errors.js';
import { characters } from '../../text/characters.js';
import { classificationMetrics, type ClassificationMetrics } from '../classification.js';
import { fitLogisticRegression, predictProbabilities } from './logistic-regression.js';
import { fromColumns } from './sparse.js';
import { fitTfidf, transformTfidf } from './tfidf.js';

/** A labelled row as the baselines see it. */
export interface BaselineItem {
  /** What the prompt is made of (headline, words), without the text that is judged. */
  context: readonly string[];
  /** What is judged: the joke. */
  text: string;
  /**
   * What the model reads of it, prompt and text as one: in training one for each template that made a prompt, in
   * validation the one that is judged.
   */
  inputs: readonly string[];
  /** 1: humorous. */
  label: 0 | 1;
}

export type BaselineName = 'majority' | 'length' | 'prompt' | 'text' | 'input' | 'everything';

export interface BaselineResult {
  name: BaselineName;
  /** What it looks at, for a table. */
  description: string;
  /** P(label = 1) of each validation row. */
  scores: Float64Array;
  metrics: ClassificationMetrics;
  /** Number of features it fitted. */
  features: number;
  /** Whether the solver reached its tolerance. */
  converged: boolean;
}

export interface BaselineOptions {
  train: readonly BaselineItem[];
  validation: readonly BaselineItem[];
  /** Inverse strength of the L2 penalty; default 1. */
  C?: number;
  /** Called before each baseline and once at the end. */
  onProgress?: (progress: { done: number; total: number; note: string }) => void;
  /** Aborts between two steps of the computation; the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

type Prediction = Omit<BaselineResult, 'name' | 'description' | 'metrics'>;
type Fit = (options: BaselineOptions) => Promise<Prediction>;

const baselines: Record<BaselineName, { description: string; fit: Fit }> = {
  majority: { description: 'always the more frequent label', fit: majority },
  length: { description: 'length of the text alone', fit: lengthOnly },
  prompt: { description: 'character n-grams of the prompt, without the text', fit: ngrams((item) => item.context) },
  text: { description: 'character n-grams of the text alone', fit: ngrams((item) => [item.text]) },
  input: { description: 'character n-grams of what the model reads', fit: ngramsOfInputs },
  everything: {
    description: 'character n-grams of every column and the text',
    fit: ngrams((item) => [...item.context, item.text]),
  },
};

/**
 * What a reward model must be judged against: how far each of six cheap scorers, fitted on `train`, gets on
 * `validation`. N-gram scorers are TF-IDF of 1 to 4 characters with logistic regression. Gives the event loop a turn
 * every few milliseconds.
 *
 * @throws UserError when a set is empty or `train` holds one label only
 */
export async function runBaselines(options: BaselineOptions): Promise<BaselineResult[]> {
  checkItems(options);
  const labels = options.validation.map(({ label }) => label);
  const names = Object.keys(baselines) as BaselineName[];
  const results: BaselineResult[] = [];
  for (const name of names) {
    const { description, fit } = baselines[name];
    options.onProgress?.({ done: results.length, total: names.length, note: name });
    options.signal?.throwIfAborted();
    const prediction = await fit(options);
    const metrics = classificationMetrics(labels, prediction.scores);
    results.push({ name, description, metrics, ...prediction });
  }
  options.onProgress?.({ done: names.length, total: names.length, note: 'done' });
  return results;
}

/** The share of label 1 in training as everybody's score, so that the prediction is the more frequent label. */
function majority({ train, validation }: BaselineOptions): Promise<Prediction> {
  const share = train.filter(({ label }) => label === 1).length / train.length;
  return Promise.resolve({
    scores: new Float64Array(validation.length).fill(share),
    features: 0,
    converged: true,
  });
}

async function lengthOnly({ train, validation, C, signal }: BaselineOptions): Promise<Prediction> {
  const lengths = train.map(({ text }) => characters(text).length);
  const mean = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
  const deviation = Math.sqrt(lengths.reduce((sum, length) => sum + (length - mean) ** 2, 0) / lengths.length) || 1;
  const features = (items: readonly BaselineItem[]) =>
    fromColumns([items.map(({ text }) => (characters(text).length - mean) / deviation)]);
  const model = await fitLogisticRegression(features(train), labelsOf(train), { ...(C && { C }), signal });
  return {
    scores: predictProbabilities(model, features(validation)),
    features: 1,
    converged: model.converged,
  };
}

function ngrams(partsOf: (item: BaselineItem) => readonly string[]): Fit {
  const textOf = (item: BaselineItem) => partsOf(item).join('\n');
  return ({ train, validation, ...options }) =>
    fitNgrams(train.map(textOf), labelsOf(train), validation.map(textOf), options);
}

/** As the model learns: every prompt of a row makes a text of its own. */
function ngramsOfInputs({ train, validation, ...options }: BaselineOptions): Promise<Prediction> {
  const labels = Uint8Array.from(train.flatMap(({ inputs, label }) => inputs.map(() => label)));
  return fitNgrams(
    train.flatMap(({ inputs }) => inputs),
    labels,
    validation.map(({ inputs }) => inputs[0]!),
    options,
  );
}

async function fitNgrams(
  texts: readonly string[],
  labels: Uint8Array,
  unseen: readonly string[],
  { C, signal }: Pick<BaselineOptions, 'C' | 'signal'>,
): Promise<Prediction> {
  const tfidf = await fitTfidf(texts, { signal });
  const features = await transformTfidf(tfidf, texts, signal);
  const model = await fitLogisticRegression(features, labels, { ...(C && { C }), signal });
  return {
    scores: predictProbabilities(model, await transformTfidf(tfidf, unseen, signal)),
    features: features.columns,
    converged: model.converged,
  };
}

function labelsOf(items: readonly BaselineItem[]): Uint8Array {
  return Uint8Array.from(items, ({ label }) => label);
}

function checkItems({ train, validation }: BaselineOptions): void {
  for (const [name, items] of Object.entries({ training: train, validation })) {
    if (items.length === 0) {
      throw new UserError({
        code: 'evaluation.no-rows',
        message: `the baselines got no ${name} rows`,
        fix: 'check the split fraction and the data file',
      });
    }
  }
  const first = train[0]!.label;
  if (train.every(({ label }) => label === first)) {
    throw new UserError({
      code: 'evaluation.one-class',
      message: `all ${train.length} training rows have label ${first}`,
      fix: 'a classifier needs rows of both labels, 0 and 1',
    });
  }
}
