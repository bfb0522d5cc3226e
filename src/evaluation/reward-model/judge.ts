import { UserError } from '../../errors.js';
import { humorousProbability } from '../../rewards/reward-model.js';
import { classificationMetrics, type ClassificationMetrics } from '../classification.js';
import type { JudgedSet } from './schema.js';

/** What is known of a text besides its logits. */
export interface JudgedText {
  /** Number of its row. */
  readonly row: number;
  /** Name of the template that made its prompt. */
  readonly template: string;
  readonly label: 0 | 1;
}

/**
 * P(label = 1) of each row of two logits.
 *
 * @throws UserError when a logit is not a number: the training has diverged
 */
export function probabilitiesOf(logits: readonly (readonly number[])[]): Float64Array {
  return Float64Array.from(logits, (row) => {
    const probability = humorousProbability(row);
    if (!Number.isNaN(probability)) return probability;
    throw new UserError({
      code: 'rm.diverged',
      message: `The reward model's logits are (${row.join(', ')}): the training has diverged.`,
      where: 'rm.learningRate',
      fix: 'Lower it, or lengthen the warm-up (rm.warmupRatio).',
    });
  });
}

/** Figures over all texts. */
export function metricsOf(texts: readonly JudgedText[], probabilities: ArrayLike<number>): ClassificationMetrics {
  return classificationMetrics(
    texts.map(({ label }) => label),
    probabilities,
  );
}

/** Figures over all texts and over those of each template. */
export function judge(texts: readonly JudgedText[], probabilities: ArrayLike<number>): JudgedSet {
  const templates = [...new Set(texts.map(({ template }) => template))];
  const own = (name: string): ClassificationMetrics => {
    const places = [...texts.keys()].filter((i) => texts[i]!.template === name);
    return metricsOf(
      places.map((i) => texts[i]!),
      places.map((i) => probabilities[i]!),
    );
  };
  return {
    rows: new Set(texts.map(({ row }) => row)).size,
    metrics: metricsOf(texts, probabilities),
    templates: Object.fromEntries(templates.map((name) => [name, own(name)])),
  };
}

/** Those of the metrics that a log line shows, under the names of Hugging Face's Trainer. */
export function evalMetrics(metrics: ClassificationMetrics): Record<string, number> {
  const { logLoss, accuracy, precision, recall, f1, rocAuc, ece } = metrics;
  return {
    eval_loss: logLoss,
    eval_accuracy: accuracy,
    eval_precision: precision,
    eval_recall: recall,
    eval_f1: f1,
    ...(rocAuc === null ? {} : { eval_roc_auc: rocAuc }),
    eval_ece: ece,
  };
}
