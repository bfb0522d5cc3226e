import type { Graph } from '../graph/graph.js';
import { tensor, wrap, type Tensor } from '../graph/tensor.js';
import { causalInputs, causalHidden, causalScores } from '../models/causal.js';
import { ModelContext } from '../nn/context.js';
import { rowsAt } from '../nn/losses.js';
import { div } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import type { DeviceTensor, Program, Runtime } from '../runtime/runtime.js';
import { inferenceOptions, type CausalModel } from './decoder.js';

/** A sequence of which some tokens are scored. */
export interface Scored {
  readonly inputIds: readonly number[];
  /** 1 where the token's log-probability is wanted; the first token of a sequence has none. */
  readonly completionMask: readonly (0 | 1)[];
}

/** The graph that scores tokens. */
export function scorerGraph(model: Omit<CausalModel, 'weights'>): Graph {
  const context = new ModelContext(newGraph(), inferenceOptions(model));
  const { graph } = context;
  const { hidden } = causalHidden(context, model.config, causalInputs(context));
  const rows = rowsAt(hidden, graph.input('rows', 'int32', ['N']));
  const scaled = div(rows, graph.input('temperature', 'float32', []));
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
    sequences: readonly Scored[],
    options: {
      readonly temperature: number;
      readonly padTokenId: number;
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
      const { feeds, counts } = scoringFeeds(
        chosen.map((i) => sequences[i]!),
        options.padTokenId,
      );
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

/** Feeds of a right-padded batch, and how many scored tokens each sequence has; no feeds when there are none at all. */
function scoringFeeds(
  sequences: readonly Scored[],
  padTokenId: number,
): { feeds: Record<string, Tensor> | undefined; counts: number[] } {
  const length = Math.max(...sequences.map(({ inputIds }) => inputIds.length));
  const inputIds = new Int32Array(sequences.length * length).fill(padTokenId);
  const attentionMask = new Int32Array(sequences.length * length);
  const [rows, targets]: [number[], number[]] = [[], []];
  const counts = sequences.map(({ inputIds: ids, completionMask }, i) => {
    inputIds.set(ids, i * length);
    attentionMask.fill(1, i * length, i * length + ids.length);
    const before = rows.length;
    for (let t = 1; t < ids.length; t++) {
      if (completionMask[t] !== 1) continue;
      rows.push(i * length + t - 1);
      targets.push(ids[t]!);
    }
    return rows.length - before;
  });
  if (rows.length === 0) return { feeds: undefined, counts };
  const shape = [sequences.length, length];
  const feeds = {
    input_ids: wrap('int32', shape, inputIds),
    attention_mask: wrap('int32', shape, attentionMask),
    position_ids: wrap(
      'int32',
      shape,
      inputIds.map((_, at) => at % length),
    ),
    rows: tensor('int32', [rows.length], rows),
    targets: tensor('int32', [targets.length], targets),
  };
  return { feeds, counts };
}
