import { UserError } from '../errors.js';

/**
 * Copies logits into `scores` and penalises the tokens of `history`, each once however often it occurs there.
 *
 * @throws RangeError when the lengths differ or the history holds an id outside the vocabulary
 */
export function penalise(
  logits: Float32Array | Float64Array,
  penalty: number,
  history: ArrayLike<number>,
  scores: Float64Array,
): Float64Array {
  if (scores.length !== logits.length) {
    throw new RangeError(`a row of ${logits.length} logits does not fit a vocabulary of ${scores.length}`);
  }
  scores.set(logits);
  if (penalty === 1) return scores;
  for (let index = 0; index < history.length; index += 1) {
    const token = history[index]!;
    const logit = logits[token];
    if (logit === undefined) throw new RangeError(`token ${token} is outside a vocabulary of ${logits.length}`);
    scores[token] = logit < 0 ? logit * penalty : logit / penalty;
  }
  return scores;
}

/**
 * The index of the highest score, the first of equal ones.
 *
 * @throws UserError when a score is NaN or +∞, or none is finite
 */
export function argmax(scores: Float64Array): number {
  let best = -1;
  let highest = -Infinity;
  for (let index = 0; index < scores.length; index += 1) {
    const score = scores[index]!;
    if (score <= highest) continue;
    if (!(score < Infinity)) throw notALogit(score, index);
    best = index;
    highest = score;
  }
  if (best === -1) throw notALogit(-Infinity, 0);
  return best;
}

const notALogit = (score: number, token: number): UserError =>
  new UserError({
    code: 'generation.logits',
    message: `The model's logit of token ${token} is ${score}, so there is no next token to draw.`,
    where: 'logits',
    fix: 'The weights are damaged or training has diverged: take an earlier checkpoint or a lower learning rate.',
  });
