import type { Value } from '../../graph/graph.js';
import type { Sequences } from './sequences.js';

/** Tokens of all completions of a batch, one after the other: every tensor has shape (N) unless another is named. */
export interface GrpoInputs {
  /** Log-probabilities by the policy that learns. */
  readonly logProbs: Value;
  /** By the policy that wrote the tokens. */
  readonly oldLogProbs: Value;
  /** By the reference; needed where beta is not 0. */
  readonly refLogProbs?: Value | undefined;
  /** Advantage of the token's completion. */
  readonly advantages: Value;
  /** What the token counts in the loss: all of the loss type's normalisation (see `tokenWeights`). */
  readonly weights: Value;
  /** Needed where `needsSequences`. */
  readonly sequences?: Sequences | undefined;
  /** Needed with an off-policy mask: by whatever drew the tokens, the old policy or a sampler that rounds otherwise. */
  readonly samplerLogProbs?: Value | undefined;
  /** Needed with a rollout correction: what the token counts for having been drawn by the sampler. */
  readonly correction?: Value | undefined;
  /** Entropies of the policy that learns; needed for the bonus and the quantile. */
  readonly entropies?: Value | undefined;
  /** Needed for the quantile: where the border lies among the sorted entropies (see `quantileRank`). */
  readonly rank?: { readonly neighbours: Value; readonly share: Value } | undefined;
  /** Needed for the bonus: its scalar weight, to a mean over kept tokens with a quantile and to their sum without. */
  readonly bonusWeight?: Value | undefined;
}
