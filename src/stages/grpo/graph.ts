import type { Value } from '../../graph/graph.js';
import type { CausalConfig } from '../../models/config/causal.js';
import { causalInputs, causalHidden, causalLogits } from '../../models/causal.js';
import { ModelContext, type LoraSettings } from '../../nn/context.js';
import { grpoLoss, type GrpoLossSettings } from '../../nn/grpo-loss.js';
import { rowsAt, tokenStatistics } from '../../nn/losses.js';
import { mul, tokenLogProbs } from '../../ops/build.js';
import { newGraph } from '../../ops/registry.js';

/**
 * The GRPO loss of a policy, without dropout: log-probabilities are compared. Outputs: `loss`, and for the metrics
 * `logprobs` and `entropies`, each (N).
 */
export function grpoGraph(
  config: CausalConfig,
  lora: LoraSettings,
  settings: GrpoLossSettings & { readonly temperature: number },
): { context: ModelContext; loss: Value } {
  const context = new ModelContext(newGraph(), { lora: { ...lora, dropout: 0 } });
  const { graph } = context;
  const tokens = (name: string): Value => graph.input(name, 'float32', ['N']);
  const { hidden } = causalHidden(context, config, causalInputs(context));
  const targets = graph.input('targets', 'int32', ['N']);
  const rows = rowsAt(hidden, graph.input('rows', 'int32', ['N']));
  const logits = mul(causalLogits(context, config, rows), 1 / settings.temperature);
  const logProbs = tokenLogProbs(logits, targets);
  const loss = grpoLoss(
    {
      logProbs,
      oldLogProbs: tokens('old_logprobs'),
      refLogProbs: settings.beta === 0 ? undefined : tokens('ref_logprobs'),
      advantages: tokens('advantages'),
      weights: tokens('weights'),
      ...(settings.importanceSamplingLevel === 'sequence'
        ? { sequences: { of: graph.input('sequences', 'int32', ['N']), share: tokens('share'), count: 'B' } }
        : {}),
    },
    settings,
  );
  graph.output('loss', loss);
  graph.output('logprobs', logProbs);
  graph.output('entropies', tokenStatistics(logits, targets).entropies);
  return { context, loss };
}
