import type { Value } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { classifierFeeds, classifierLogits } from '../models/classifier.js';
import type { ModelConfig } from '../models/config/model-config.js';
import type { PaddedTokens } from '../models/padded-tokens.js';
import { ModelContext, type LoraSettings, type Precision } from '../nn/context.js';
import { bradleyTerryLoss } from '../nn/preference-loss.js';
import { div, gatherRows, reduceSum, reshape } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { dropsOut } from './dropout.js';
import type { Metrics } from './loop.js';

/**
 * The Bradley–Terry loss of a head of one label, the reward. The batch holds the chosen texts of P pairs and then the
 * rejected ones. Outputs: `loss`, Σ over pairs / the feed `divisor`; `rewards` (2·P).
 */
export function bradleyTerryGraph(
  config: ModelConfig,
  settings: { readonly centering: number; readonly recompute?: boolean; readonly precision?: Precision },
  lora?: LoraSettings,
): { context: ModelContext; loss: Value } {
  const { centering, recompute, precision } = settings;
  const context = new ModelContext(newGraph(), {
    training: dropsOut(config, lora),
    recompute,
    precision,
    ...(lora !== undefined && { lora }),
  });
  const { graph } = context;
  const logits = classifierLogits(context, config);
  const rewards = reshape(logits, [logits.shape[0]!]);
  const side = (name: string): Value => gatherRows(rewards, graph.input(name, 'int32', ['P']));
  const losses = bradleyTerryLoss(side('chosen_rows'), side('rejected_rows'), centering);
  const loss = div(reduceSum(losses), graph.input('divisor', 'float32', []));
  graph.output('loss', loss);
  graph.output('rewards', rewards);
  return { context, loss };
}

/** Feeds of `bradleyTerryGraph` except those of dropout: the texts of pairs, the chosen ones first. */
export function bradleyTerryFeeds(config: ModelConfig, texts: PaddedTokens, divisor: number): Record<string, Tensor> {
  const pairs = texts.batch / 2;
  const rows = Array.from({ length: pairs }, (_, i) => i);
  return {
    ...classifierFeeds(config, texts),
    chosen_rows: tensor('int32', [pairs], rows),
    rejected_rows: tensor(
      'int32',
      [pairs],
      rows.map((i) => pairs + i),
    ),
    divisor: tensor('float32', [], [divisor]),
  };
}

/** TRL's metrics of rewards, those of the chosen texts and then those of the rejected ones. */
export function rewardMetrics(rewards: ArrayLike<number>): Metrics {
  const pairs = rewards.length / 2;
  const all = Array.from(rewards);
  const margins = all.slice(0, pairs).map((chosen, i) => chosen - rewards[pairs + i]!);
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  return {
    accuracy: mean(margins.map((margin) => (margin > 0 ? 1 : 0))),
    margin: mean(margins),
    min_reward: all.reduce((a, b) => Math.min(a, b)),
    mean_reward: mean(all),
    max_reward: all.reduce((a, b) => Math.max(a, b)),
  };
}
