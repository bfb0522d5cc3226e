import { classifierFeeds, classifierLogits } from '../models/classifier.js';
import type { ModelConfig } from '../models/config/model-config.js';
import { ModelContext, type ContextOptions } from '../nn/context.js';
import { newGraph } from '../ops/registry.js';
import type { DeviceTensor, Program, Runtime, StoredTensor } from '../runtime/runtime.js';
import { partsByLength } from '../text/by-length.js';
import { collateTexts } from '../text/collate.js';

export interface ClassifyOptions {
  /** Most sequences that are computed together. */
  readonly batchSize: number;
  readonly padTokenId: number;
  /** Weights that were not bound to files. */
  readonly weights?: Readonly<Record<string, DeviceTensor>>;
  /** Gives up between two batches once it is aborted, by throwing its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called after each batch with the number of sequences done. */
  readonly onProgress?: (done: number) => void;
}

/** Most tokens, padding included, that are computed together; a longer sequence is computed alone. */
const TOKENS = 1024;

/** Of sequences of one length, how many are computed together. */
export const sequencesAtOnce = (batchSize: number, length: number): number =>
  Math.max(1, Math.min(batchSize, Math.floor(TOKENS / length)));

/** An adapter on the classifier; whether its matrices are read from their files piece by piece; how its blocks multiply. */
export type ClassifierOptions = Pick<ContextOptions, 'lora' | 'streamed' | 'precision'>;

/** A classifier without dropout: token ids in, logits out. */
export class Classifier {
  private constructor(
    private readonly program: Program,
    private readonly config: ModelConfig,
  ) {}

  /**
   * @param weights where the weights lie; those that are left out are fed to each call
   * @param options of an adapter, whose weights are fed too
   */
  static async create(
    runtime: Runtime,
    config: ModelConfig,
    weights?: ReadonlyMap<string, StoredTensor>,
    options?: ClassifierOptions,
  ): Promise<Classifier> {
    return new Classifier(await runtime.compile(classifierContext(config, options).graph, weights), config);
  }

  /**
   * Logits of each sequence, in the given order: (sequences) × (labels). Sequences of like length share a batch, which
   * is padded to its longest; of all ways to share, the one with the fewest tokens.
   */
  async logits(sequences: readonly (readonly number[])[], options: ClassifyOptions): Promise<number[][]> {
    const { batchSize, padTokenId, weights } = options;
    const results = new Array<number[]>(sequences.length);
    let done = 0;
    for (const chosen of partsByLength(
      sequences.map(({ length }) => length),
      TOKENS,
      batchSize,
    )) {
      options.signal?.throwIfAborted();
      const tokens = collateTexts(
        chosen.map((i) => sequences[i]!),
        { padId: padTokenId },
      );
      const { logits } = await this.program.run({ ...classifierFeeds(this.config, tokens), ...weights });
      const values = logits!.data as Float32Array;
      const labels = this.config.labels.length;
      for (const [row, i] of chosen.entries()) results[i] = [...values.subarray(row * labels, (row + 1) * labels)];
      options.onProgress?.((done += chosen.length));
    }
    return results;
  }

  async dispose(): Promise<void> {
    await this.program.dispose();
  }
}

/** The graph of a classifier, with output `logits` (B, labels), and the weights that it reads. */
export function classifierContext(config: ModelConfig, options: ClassifierOptions = {}): ModelContext {
  const context = new ModelContext(newGraph(), options);
  context.graph.output('logits', classifierLogits(context, config));
  return context;
}
