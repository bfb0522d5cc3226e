import type { Value } from '../../graph/graph.js';
import { tensor, type Tensor } from '../../graph/tensor.js';
import { causalHidden, causalScores } from '../../models/causal.js';
import type { CausalConfig } from '../../models/config/causal.js';
import { packedTokens, predictionsOf, type MaskedSequence } from '../../models/packed-tokens.js';
import { ModelContext, type LoraSettings, type Quantization } from '../../nn/context.js';
import { dpoLoss, type DpoLossSettings } from '../../nn/preference-loss.js';
import { div, gatherRows, reduceSum, scatterAddRows, sub } from '../../ops/build.js';
import { newGraph } from '../../ops/registry.js';
import { causalLossFeeds } from '../../training/language.js';

/** Log-probabilities of a pair's texts by the reference, summed over their tokens; nats. */
export interface ReferenceLogProbs {
  readonly chosen: number;
  readonly rejected: number;
}

/**
 * The DPO loss of a policy, without dropout: log-probabilities are compared. The batch holds the chosen texts of P
 * pairs and then the rejected ones. Outputs: `loss`, Σ over pairs / the feed `divisor`; `logps` (B), each text's
 * log-probability; for logs `token_entropy` and `token_correct` (N).
 */
export function dpoGraph(
  config: CausalConfig,
  lora: LoraSettings,
  settings: DpoLossSettings & { readonly quantization: Quantization; readonly recompute?: boolean },
): { context: ModelContext; loss: Value } {
  const { quantization, recompute } = settings;
  const context = new ModelContext(newGraph(), { lora: { ...lora, dropout: 0 }, quantization, recompute });
  const { graph } = context;
  const rows = graph.input('rows', 'int32', ['N']);
  const { hidden } = causalHidden(context, config, packedTokens(context), rows);
  const targets = graph.input('targets', 'int32', ['N']);
  const texts = graph.input('texts', 'int32', ['N']);
  const { logProbs, entropies, correct } = causalScores(context, config, hidden, targets);
  const logps = scatterAddRows(logProbs, texts, 'B');

  const side = (name: 'chosen' | 'rejected'): { ratio: Value; tokens: Value } => {
    const own = gatherRows(logps, graph.input(`${name}_rows`, 'int32', ['P']));
    const ratio = sub(own, graph.input(`${name}_reference`, 'float32', ['P']));
    return { ratio, tokens: graph.input(`${name}_tokens`, 'float32', ['P']) };
  };
  const [chosen, rejected] = [side('chosen'), side('rejected')];
  const losses = dpoLoss(
    {
      chosen: chosen.ratio,
      rejected: rejected.ratio,
      chosenTokens: chosen.tokens,
      rejectedTokens: rejected.tokens,
    },
    settings,
  );
  const loss = div(reduceSum(losses), graph.input('divisor', 'float32', []));
  const outputs = { loss, logps, token_entropy: entropies, token_correct: correct };
  for (const [name, value] of Object.entries(outputs)) graph.output(name, value);
  return { context, loss };
}

/** Feeds of `dpoGraph` for the texts of pairs, the chosen ones first; `divisor` counts the pairs of the step. */
export function dpoFeeds(
  batch: readonly MaskedSequence[],
  reference: readonly ReferenceLogProbs[],
  divisor: number,
): Record<string, Tensor> {
  const pairs = reference.length;
  const { sequences: texts } = predictionsOf(batch);
  const tokens = new Float32Array(batch.length);
  for (const text of texts) tokens[text]!++;
  const perPair = (values: ArrayLike<number>): Tensor => tensor('float32', [pairs], Array.from(values));
  const rows = (start: number): Tensor =>
    tensor(
      'int32',
      [pairs],
      Array.from(reference, (_, i) => start + i),
    );
  return {
    ...causalLossFeeds(batch, divisor),
    texts: tensor('int32', [texts.length], texts),
    chosen_rows: rows(0),
    rejected_rows: rows(pairs),
    chosen_reference: perPair(reference.map(({ chosen }) => chosen)),
    rejected_reference: perPair(reference.map(({ rejected }) => rejected)),
    chosen_tokens: perPair(tokens.subarray(0, pairs)),
    rejected_tokens: perPair(tokens.subarray(pairs)),
  };
}
