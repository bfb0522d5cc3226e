import { cutAtSum, kthLargest, type Cut } from './cut.js';
import { argmax, penalise } from './scores.js';
import { checkSettings, type SamplingSettings } from './sampling-settings.js';

/** Work space for rows of `vocabularySize` logits, so that drawing a token allocates nothing. */
export class SamplerScratch {
  readonly scores: Float64Array;
  readonly weights: Float64Array;
  readonly work: Float64Array;
  readonly tokens: Uint32Array;
  readonly cut: Cut = { value: 0, ties: 0 };
  /** Sum of the candidates' weights. */
  mass = 0;

  constructor(readonly vocabularySize: number) {
    this.scores = new Float64Array(vocabularySize);
    this.weights = new Float64Array(vocabularySize);
    this.work = new Float64Array(vocabularySize);
    this.tokens = new Uint32Array(vocabularySize);
  }
}

/**
 * Draws the next token from one row of logits, exactly from the distribution of `filteredProbabilities`, in a few
 * passes over the vocabulary and without sorting it. Takes one uniform number from `random` (none at temperature 0) and
 * inverts the cumulative distribution over token ids.
 *
 * @param logits one row, (V,), or those of some tokens, whose places in it are then what is drawn
 * @param history token ids that the repetition penalty applies to
 * @throws UserError when a setting is out of range or a logit is not a number
 */
export function sampleToken(
  logits: Float32Array | Float64Array,
  settings: SamplingSettings,
  random: { uniform(): number },
  scratch: SamplerScratch,
  history: ArrayLike<number> = noHistory,
): number {
  const count = selectCandidates(logits, settings, scratch, history);
  const { tokens, work: weights } = scratch;
  const last = tokens[count - 1]!;
  if (settings.temperature === 0) return last;

  const target = random.uniform() * scratch.mass;
  let mass = 0;
  for (let index = 0; index < count; index += 1) {
    mass += weights[index]!;
    if (target < mass) return tokens[index]!;
  }
  return last;
}

/**
 * Finds the tokens that the settings leave, in the order of their ids, and their weights, which are proportional to
 * their probabilities: the first entries of `scratch.tokens` and `scratch.work`, and `scratch.mass`.
 *
 * @returns how many tokens are left, at least 1
 */
export function selectCandidates(
  logits: Float32Array | Float64Array,
  settings: SamplingSettings,
  scratch: SamplerScratch,
  history: ArrayLike<number> = noHistory,
): number {
  checkSettings(settings);
  const { tokens, weights, work } = scratch;
  const scores = penalise(logits, settings.repetitionPenalty, history, scratch.scores);
  const likeliest = argmax(scores);
  if (settings.temperature === 0) {
    tokens[0] = likeliest;
    work[0] = 1;
    scratch.mass = 1;
    return 1;
  }

  const total = weigh(settings, scores[likeliest]!, scratch);
  const cut = cutNucleus(settings.topP, total, scratch);
  let { ties } = cut;
  let count = 0;
  let mass = 0;
  for (let token = 0; token < weights.length; token += 1) {
    const weight = weights[token]!;
    if (weight < cut.value || weight < settings.minP || weight === 0) continue;
    if (weight === cut.value && ties-- <= 0) continue;
    tokens[count] = token;
    work[count] = weight;
    mass += weight;
    count += 1;
  }
  scratch.mass = mass;
  return count;
}

/** Weights relative to the likeliest token's, 0 for tokens beyond top-k; returns their sum. */
function weigh({ temperature, topK }: SamplingSettings, highest: number, scratch: SamplerScratch): number {
  const { scores, weights } = scratch;
  const lowestKept = topK > 0 && topK < scores.length ? kthScore(topK, scratch) : -Infinity;
  let total = 0;
  for (let token = 0; token < scores.length; token += 1) {
    const score = scores[token]!;
    const weight = score >= lowestKept ? Math.exp((score - highest) / temperature) : 0;
    weights[token] = weight;
    total += weight;
  }
  return total;
}

/** The k-th largest score. */
function kthScore(k: number, { scores, work, cut }: SamplerScratch): number {
  // At least k scores reach the k-th largest of the maxima of disjoint chunks, so that the k largest scores all do.
  const chunk = Math.max(1, Math.floor(scores.length / (8 * k)));
  let chunks = 0;
  for (let start = 0; start < scores.length; start += chunk) {
    const end = Math.min(start + chunk, scores.length);
    let highest = scores[start]!;
    for (let token = start + 1; token < end; token += 1) {
      if (scores[token]! > highest) highest = scores[token]!;
    }
    work[chunks] = highest;
    chunks += 1;
  }
  const bound = kthLargest(work, chunks, k, cut);
  let count = 0;
  for (let token = 0; token < scores.length; token += 1) {
    if (scores[token]! < bound) continue;
    work[count] = scores[token]!;
    count += 1;
  }
  return kthLargest(work, count, k, cut);
}

/** The border of top-p among the weights. */
function cutNucleus(topP: number, total: number, { weights, work, cut }: SamplerScratch): Cut {
  cut.value = 0;
  cut.ties = 0;
  if (topP === 1) return cut;
  // All tokens with less than this have together less than 1 − p, so none of them is in the nucleus.
  const negligible = ((1 - topP) * total) / weights.length;
  let count = 0;
  for (let token = 0; token < weights.length; token += 1) {
    const weight = weights[token]!;
    if (weight < negligible) continue;
    work[count] = weight;
    count += 1;
  }
  cutAtSum(work, count, topP * total, cut);
  return cut;
}

const noHistory: readonly number[] = [];
