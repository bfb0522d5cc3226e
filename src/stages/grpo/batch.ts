import { tensor, wrap, type Tensor } from '../../graph/tensor.js';
import { tokenWeights, type GrpoLossType } from '../../nn/grpo-loss.js';

/** A completion of a rollout with all that the loss needs of it. */
export interface RolloutSample {
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
  readonly advantage: number;
  /** One a completion token, by the policy that wrote it; nats, at the rollout's temperature. */
  readonly oldLogProbs: readonly number[];
  /** By the reference; absent when beta is 0. */
  readonly refLogProbs?: readonly number[];
  /** False for a truncated completion that is left out of the loss. */
  readonly learned: boolean;
}

export interface BatchScale {
  readonly lossType: GrpoLossType;
  readonly maxCompletionLength: number;
  readonly accumulation: number;
  readonly rolloutTokens: number;
  readonly rolloutBatches: number;
}

/** Tokens that are learned of a completion. */
export const learnedTokens = ({ learned, completionIds }: RolloutSample): number =>
  learned ? completionIds.length : 0;

/**
 * Feeds of `grpoGraph` for a micro-batch: the sequences padded on the right, and the learned tokens of all completions
 * one after the other. Where all are left out, their tokens are there with a weight of zero: loss and gradients are zero,
 * as in TRL, and the optimizer takes its step.
 */
export function grpoFeeds(
  samples: readonly RolloutSample[],
  padTokenId: number,
  scale: BatchScale,
): Record<string, Tensor> {
  const length = Math.max(...samples.map(({ promptIds, completionIds }) => promptIds.length + completionIds.length));
  const inputIds = new Int32Array(samples.length * length).fill(padTokenId);
  const attentionMask = new Int32Array(samples.length * length);
  const weights = tokenWeights(scale.lossType, samples.map(learnedTokens), scale);
  const idle = samples.every(({ learned }) => !learned);
  const rows: number[] = [];
  const flat = {
    targets: [] as number[],
    old: [] as number[],
    ref: [] as number[],
    advantages: [] as number[],
    weights: [] as number[],
    sequences: [] as number[],
    share: [] as number[],
  };
  for (const [i, sample] of samples.entries()) {
    const { promptIds, completionIds } = sample;
    inputIds.set([...promptIds, ...completionIds], i * length);
    attentionMask.fill(1, i * length, i * length + promptIds.length + completionIds.length);
    if (!sample.learned && !idle) continue;
    for (const [t, id] of completionIds.entries()) {
      rows.push(i * length + promptIds.length + t - 1);
      flat.targets.push(id);
      flat.old.push(sample.oldLogProbs[t]!);
      flat.ref.push(sample.refLogProbs?.[t] ?? 0);
      flat.advantages.push(sample.advantage);
      flat.weights.push(idle ? 0 : weights[i]!);
      flat.sequences.push(i);
      flat.share.push(1 / completionIds.length);
    }
  }
  const [shape, count] = [[samples.length, length], [rows.length]];
  return {
    input_ids: wrap('int32', shape, inputIds),
    attention_mask: wrap('int32', shape, attentionMask),
    position_ids: wrap(
      'int32',
      shape,
      inputIds.map((_, at) => at % length),
    ),
    rows: tensor('int32', count, rows),
    targets: tensor('int32', count, flat.targets),
    old_logprobs: tensor('float32', count, flat.old),
    ref_logprobs: tensor('float32', count, flat.ref),
    advantages: tensor('float32', count, flat.advantages),
    weights: tensor('float32', count, flat.weights),
    sequences: tensor('int32', count, flat.sequences),
    share: tensor('float32', count, flat.share),
  };
}
