import { tensor, type Tensor } from '../../graph/tensor.js';
import { packedFeeds } from '../../models/packed-tokens.js';
import type { GrpoLossSettings } from '../../nn/grpo/settings.js';
import { quantileRank, tokenWeights, type LossScale } from '../../nn/grpo/token-weights.js';
import { correctionWeights } from './correction.js';

/** A completion of a rollout with all that the loss needs of it. */
export interface RolloutSample {
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
  readonly advantage: number;
  /** One a completion token, by the policy that wrote it; nats, at the rollout's temperature. */
  readonly oldLogProbs: readonly number[];
  /** By the reference; absent when beta is 0. */
  readonly refLogProbs?: readonly number[];
  /** By the sampler that drew the tokens, where it computes otherwise than the policy. */
  readonly samplerLogProbs?: readonly number[];
  /** False for a truncated completion that is left out of the loss. */
  readonly learned: boolean;
}

/** All that turns a batch of completions into feeds of `grpoGraph`. */
export interface BatchSettings {
  readonly loss: GrpoLossSettings;
  readonly scale: LossScale;
  /** Weight of the entropy bonus in this step. */
  readonly entropyCoef: number;
  /** Completions in one pass, where a batch is cut into several for memory. */
  readonly microBatchSize?: number | undefined;
}

/** Tokens that are learned of a completion. */
export const learnedTokens = ({ learned, completionIds }: RolloutSample): number =>
  learned ? completionIds.length : 0;

/** A part of a batch that goes through the graph at once. */
export interface MicroBatch {
  readonly samples: readonly RolloutSample[];
  readonly feeds: Record<string, Tensor>;
}

/**
 * A batch cut into micro-batches, whose losses add up to the batch's: every average is over the batch, however it is
 * cut.
 */
export function microBatches(batch: readonly RolloutSample[], settings: BatchSettings): MicroBatch[] {
  const size = settings.microBatchSize ?? batch.length;
  const lengths = batch.map(learnedTokens);
  const weights = tokenWeights(settings.loss.lossType, lengths, settings.scale);
  const tokens = lengths.reduce((a, b) => a + b, 0);
  // With a quantile the graph averages over the tokens that it keeps.
  const averaged = settings.loss.topEntropyQuantile < 1 ? 1 : Math.max(tokens, 1);
  const bonusWeight = settings.entropyCoef / (averaged * settings.scale.accumulation);
  const parts: MicroBatch[] = [];
  for (let start = 0; start < batch.length; start += size) {
    const samples = batch.slice(start, start + size);
    parts.push({ samples, feeds: feedsOf(samples, weights.slice(start, start + size), bonusWeight, settings) });
  }
  return parts;
}

/**
 * The sequences and the learned tokens of all completions one after the other. Where all are left
 * out, their tokens are there with a weight of zero: loss and gradients are zero, as in TRL, and the optimizer takes its
 * step.
 */
function feedsOf(
  samples: readonly RolloutSample[],
  weights: readonly number[],
  bonusWeight: number,
  { loss }: BatchSettings,
): Record<string, Tensor> {
  const idle = samples.every(({ learned }) => !learned);
  const [rows, targets, sequences]: [number[], number[], number[]] = [[], [], []];
  const floats = {
    old_logprobs: [] as number[],
    ref_logprobs: [] as number[],
    sampler_logprobs: [] as number[],
    correction: [] as number[],
    advantages: [] as number[],
    weights: [] as number[],
    share: [] as number[],
  };
  let start = 0;
  for (const [i, sample] of samples.entries()) {
    const { promptIds, completionIds, oldLogProbs, refLogProbs, samplerLogProbs } = sample;
    const begin = start + promptIds.length;
    start = begin + completionIds.length;
    if (!sample.learned && !idle) continue;
    const corrections = correctionWeights(sample, loss.rolloutCorrection);
    for (const [t, id] of completionIds.entries()) {
      rows.push(begin + t - 1);
      targets.push(id);
      sequences.push(i);
      floats.old_logprobs.push(oldLogProbs[t]!);
      floats.ref_logprobs.push(refLogProbs?.[t] ?? 0);
      floats.sampler_logprobs.push(samplerLogProbs?.[t] ?? oldLogProbs[t]!);
      floats.correction.push(corrections[t]!);
      floats.advantages.push(sample.advantage);
      floats.weights.push(idle ? 0 : weights[i]!);
      floats.share.push(1 / completionIds.length);
    }
  }
  const count = rows.length;
  const rank = quantileRank(count, 1 - loss.topEntropyQuantile);
  return {
    ...packedFeeds(samples.map(({ promptIds, completionIds }) => [...promptIds, ...completionIds])),
    rows: tensor('int32', [count], rows),
    targets: tensor('int32', [count], targets),
    sequences: tensor('int32', [count], sequences),
    ...Object.fromEntries(Object.entries(floats).map(([name, values]) => [name, tensor('float32', [count], values)])),
    rank_neighbours: tensor('int32', [2], [rank.below, rank.above]),
    rank_share: tensor('float32', [], [rank.share]),
    bonus_weight: tensor('float32', [], [idle ? 0 : bonusWeight]),
  };
}
