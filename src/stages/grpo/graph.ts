import type { Value } from '../../graph/graph.js';
import type { CausalConfig } from '../../models/config/causal.js';
import { causalHidden, causalLogits, causalScores } from '../../models/causal.js';
import { packedTokens } from '../../models/packed-tokens.js';
import { ModelContext, type LoraSettings, type Quantization } from '../../nn/context.js';
import { grpoLoss, needsSequences } from '../../nn/grpo/loss.js';
import type { GrpoLossSettings } from '../../nn/grpo/settings.js';
import { mul, tokenEntropies, tokenLogProbs, type TokenScores } from '../../ops/build.js';
import { newGraph } from '../../ops/registry.js';

/** Scores of tokens; with an entropy bonus from whole logits, as only those have a gradient of their entropy. */
function scoresOf(
  context: ModelContext,
  config: CausalConfig,
  rows: Value,
  targets: Value,
  { entropyBonus }: GrpoLossSettings,
): Pick<TokenScores, 'logProbs' | 'entropies'> {
  if (!entropyBonus) return causalScores(context, config, rows, targets);
  const logits = causalLogits(context, config, rows);
  return { logProbs: tokenLogProbs(logits, targets), entropies: tokenEntropies(logits) };
}

/**
 * The GRPO loss of a policy, without dropout: log-probabilities are compared. Outputs: `loss`, and for the metrics
 * `logprobs` and `entropies`, each (N); with an entropy bonus `policy_loss`; with an entropy quantile `kept` (N).
 */
export function grpoGraph(
  config: CausalConfig,
  lora: LoraSettings,
  settings: GrpoLossSettings & {
    readonly temperature: number;
    readonly quantization?: Quantization | undefined;
    readonly recompute?: boolean;
  },
): { context: ModelContext; loss: Value } {
  const { quantization, recompute } = settings;
  const context = new ModelContext(newGraph(), { quantization, recompute, lora: { ...lora, dropout: 0 } });
  const { graph } = context;
  const tokens = (name: string): Value => graph.input(name, 'float32', ['N']);
  const rows = graph.input('rows', 'int32', ['N']);
  const { hidden } = causalHidden(context, config, packedTokens(context), rows);
  const targets = graph.input('targets', 'int32', ['N']);
  const { logProbs, entropies } = scoresOf(context, config, mul(hidden, 1 / settings.temperature), targets, settings);
  const { loss, policyLoss, kept } = grpoLoss(
    {
      logProbs,
      entropies,
      oldLogProbs: tokens('old_logprobs'),
      refLogProbs: settings.beta === 0 ? undefined : tokens('ref_logprobs'),
      samplerLogProbs: settings.offPolicyMaskThreshold === undefined ? undefined : tokens('sampler_logprobs'),
      correction: settings.rolloutCorrection === undefined ? undefined : tokens('correction'),
      advantages: tokens('advantages'),
      weights: tokens('weights'),
      sequences: needsSequences(settings)
        ? { of: graph.input('sequences', 'int32', ['N']), share: tokens('share'), count: 'B' }
        : undefined,
      rank:
        settings.topEntropyQuantile < 1
          ? {
              neighbours: graph.input('rank_neighbours', 'int32', [2]),
              share: graph.input('rank_share', 'float32', []),
            }
          : undefined,
      bonusWeight: settings.entropyBonus ? graph.input('bonus_weight', 'float32', []) : undefined,
    },
    settings,
  );
  graph.output('loss', loss);
  graph.output('logprobs', logProbs);
  graph.output('entropies', entropies);
  if (settings.entropyBonus) graph.output('policy_loss', policyLoss);
  if (kept !== undefined) graph.output('kept', kept);
  return { context, loss };
}
