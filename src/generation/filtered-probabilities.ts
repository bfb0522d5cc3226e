import { argmax, penalise } from './scores.js';
import { checkSettings, type SamplingSettings } from './sampling-settings.js';

/**
 * The distribution that `sampleToken` draws from, (V,), by sorting the whole vocabulary: repetition penalty,
 * temperature, top-k, top-p and min-p in the order and with the meaning of transformers' logits processors, then the
 * softmax of what is left. Of equal tokens at the border of top-p those with lower ids are kept.
 *
 * @param logits one row, (V,)
 * @param history token ids that the repetition penalty applies to
 * @throws UserError when a setting is out of range or a logit is not a number
 */
export function filteredProbabilities(
  logits: Float32Array | Float64Array,
  settings: SamplingSettings,
  history: ArrayLike<number> = [],
): Float64Array {
  checkSettings(settings);
  const { temperature, topK, topP, minP, repetitionPenalty } = settings;
  const scores = penalise(logits, repetitionPenalty, history, new Float64Array(logits.length));
  const likeliest = argmax(scores);
  if (temperature === 0) return scores.map((_, token) => (token === likeliest ? 1 : 0));

  const highest = scores[likeliest]!;
  const lowestKept = topK > 0 && topK < scores.length ? scores.toSorted().at(-topK)! : -Infinity;
  const weights = scores.map((score) => (score >= lowestKept ? Math.exp((score - highest) / temperature) : 0));

  const nucleus = new Set<number>();
  const target = topP * weights.reduce((sum, weight) => sum + weight, 0);
  const order = [...weights.keys()].sort((a, b) => weights[b]! - weights[a]! || a - b);
  let mass = 0;
  for (const token of order) {
    if (topP < 1 && mass >= target) break;
    nucleus.add(token);
    mass += weights[token]!;
  }

  const kept = weights.map((weight, token) => (nucleus.has(token) && weight >= minP ? weight : 0));
  const total = kept.reduce((sum, weight) => sum + weight, 0);
  return kept.map((weight) => weight / total);
}
