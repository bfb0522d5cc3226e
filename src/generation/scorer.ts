import type { Graph } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { causalHidden, causalScores } from '../models/causal.js';
import { packedFeeds, packedTokens, predictionsOf, type MaskedSequence } from '../models/packed-tokens.js';
import { ModelContext } from '../nn/context.js';
import { div } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import type { DeviceTensor, Program, Runtime } from '../runtime/runtime.js';
import { inferenceOptions, type CausalModel } from './decoder.js';

/** The graph that scores tokens. */
export function scorerGraph(model: Omit<CausalModel, 'weights'>): Graph {
  const context = new ModelContext(newGraph(), inferenceOptions(model));
  const { graph } = context;
  const rows = graph.input('rows', 'int32', ['N']);
  const { hidden } = causalHidden(context, model.config, packedTokens(context), rows);
  const scaled = div(hidden, graph.input('temperature', 'float32', []));
  const { logProbs } = causalScores(context, model.config, scaled, graph.input('targets', 'int32', ['N']));
  graph.output('logprobs', logProbs);
  return graph;
}

/** Log-probabilities of given tokens, without dropout. */
export class Scorer {
  private constructor(private readonly program: Program) {}

  static async create(runtime: Runtime, model: CausalModel): Promise<Scorer> {
    return new Scorer(await runtime.compile(scorerGraph(model), model.weights));
  }

  /** Natural log-probabilities of the masked tokens of each sequence, in order, from logits divided by the temperature. */
  async logProbabilities(
    sequences: readonly MaskedSequence[],
    options: {
      readonly temperature: number;
      readonly batchSize: number;
      readonly adapter?: Readonly<Record<string, Tensor | DeviceTensor>>;
      /** Gives up between two batches once it is aborted, by throwing its reason. */
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<Float32Array[]> {
    const results = new Array<Float32Array>(sequences.length);
    const order = [...sequences.keys()].sort(
      (a, b) => sequences[a]!.inputIds.length - sequences[b]!.inputIds.length || a - b,
    );
    for (let start = 0; start < order.length; start += options.batchSize) {
      options.signal?.throwIfAborted();
      const chosen = order.slice(start, start + options.batchSize);
      const { feeds, counts } = scoringFeeds(chosen.map((i) => sequences[i]!));
      if (feeds === undefined) {
        for (const i of chosen) results[i] = new Float32Array(0);
        continue;
      }
      const temperature = tensor('float32', [], [options.temperature]);
      const { logprobs } = await this.program.run({ ...feeds, temperature, ...options.adapter });
      let at = 0;
      for (const [k, i] of chosen.entries())
        results[i] = (logprobs!.data as Float32Array).slice(at, (at += counts[k]!));
    }
    return results;
  }

  async dispose(): Promise<void> {
    await this.program.dispose();
  }
}

/** Feeds of a batch, and how many scored tokens each sequence has; no feeds when there are none at all. */
function scoringFeeds(batch: readonly MaskedSequence[]): {
  feeds: Record<string, Tensor> | undefined;
  counts: number[];
} {
  const { rows, targets, sequences } = predictionsOf(batch);
  const counts = new Array<number>(batch.length).fill(0);
  for (const sequence of sequences) counts[sequence]!++;
  if (rows.length === 0) return { feeds: undefined, counts };
  const feeds = {
    ...packedFeeds(batch.map(({ inputIds }) => inputIds)),
    rows: tensor('int32', [rows.length], rows),
    targets: tensor('int32', [targets.length], targets),
  };
  return { feeds, counts };
}
