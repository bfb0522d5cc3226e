import type { Graph } from '../graph/graph.js';
import { tensor, wrap, type Tensor } from '../graph/tensor.js';
import type { CausalConfig } from '../models/config/causal.js';
import { causalDecoder, causalLogits } from '../models/causal.js';
import { ModelContext, type ContextOptions, type LoraSettings, type Quantization } from '../nn/context.js';
import { mul } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import type { DeviceTensor, Program, Runtime, StoredTensor } from '../runtime/runtime.js';
import { outputBlockSums } from './block-sums.js';
import { KeyValueCache } from './key-value-cache.js';
import type { SamplingSettings } from './sampling-settings.js';
import { passesOf, WaitingPrompts, type Prompt } from './waiting-prompts.js';
import { TokenDrawer, type DrawnToken } from './token-drawer.js';

/** A causal model as the generation code takes it: the base's weights in their files, an adapter's as feeds. */
export interface CausalModel {
  readonly config: CausalConfig;
  readonly weights: ReadonlyMap<string, StoredTensor>;
  readonly lora?: LoraSettings;
  /** The form of the base's matrices, for which `weights` holds what it needs; default float32. */
  readonly quantization?: Quantization;
}

/** How a graph that only computes sees a model: no dropout. */
export const inferenceOptions = ({
  lora,
  quantization,
}: Pick<CausalModel, 'lora' | 'quantization'>): ContextOptions => ({
  quantization,
  ...(lora === undefined ? {} : { lora: { ...lora, dropout: 0 } }),
});

/**
 * The graph of one decoding step, or of the prompt pass, with what tokens are drawn from as outputs. Its feed
 * `inverse_temperature`, a float32 scalar, multiplies the rows before the head: a vocabulary is a longer row.
 */
export function decoderGraph(model: Omit<CausalModel, 'weights'>): Graph {
  const { config } = model;
  const context = new ModelContext(newGraph(), inferenceOptions(model));
  const { graph } = context;
  const rows = mul(causalDecoder(context, config), graph.input('inverse_temperature', 'float32', []));
  outputBlockSums(causalLogits(context, config, rows));
  return graph;
}

export interface DecodeOptions {
  readonly maxNewTokens: number;
  readonly sampling: SamplingSettings;
  /** Any of these ends a completion, and is its last token. */
  readonly eosTokenIds: ReadonlySet<number>;
  readonly padTokenId: number;
  /** Completions written at once. */
  readonly batchSize: number;
  /** The random numbers of a completion, by its prompt's position in the list: its own stream, whatever it is batched with. */
  random(prompt: number): { uniform(): number };
  /** The adapter's weights, where the model has one. */
  readonly adapter?: Readonly<Record<string, Tensor | DeviceTensor>>;
  readonly signal?: AbortSignal | undefined;
  /** Called as tokens are written. */
  onProgress?(done: { finished: number; total: number; tokens: number }): void;
}

export interface Completion {
  /** EOS included, where the model wrote it. */
  readonly ids: number[];
  /**
   * Natural logarithm of each token's probability when it was drawn, at the sampling temperature (at 1 when greedy) and
   * before top-k, top-p and min-p.
   */
  readonly logProbs: number[];
  readonly finishReason: 'stop' | 'length';
}

/** A completion and the position of its prompt in the list. */
export interface Finished extends Completion {
  readonly prompt: number;
}

/** Cache lengths are multiples of this, so that few shapes occur. */
export const CACHE_STEP = 32;

/** Factor by which a cache grows that has no room left: attention reads all of it. */
const GROWTH = 1.125;

/** Prompt tokens, padding included, that go through the model at once. */
export const PROMPT_TOKENS = 1024;

/** A completion being written. */
interface Row {
  readonly prompt: number;
  readonly random: { uniform(): number };
  readonly ids: number[];
  readonly logProbs: number[];
  /** Tokens in the cache. */
  length: number;
}

/** Rows with their first token whose prompts are in a cache of their own, and wait for a place in the batch. */
interface Begun {
  readonly cache: KeyValueCache;
  readonly rows: { readonly row: Row; readonly at: number }[];
}

const roundUp = (length: number): number => Math.ceil(length / CACHE_STEP) * CACHE_STEP;

/**
 * Autoregressive decoding over a key/value cache that stays on the device and grows with the rows. A finished row leaves the batch at once, and
 * the next prompt takes its place. A prompt that occurs several times goes through the model once: its cache is copied
 * to each of its completions. Every completion has random numbers of its own, so that none of this changes what is
 * written beyond the rounding of sums.
 */
export class Decoder {
  private constructor(
    private readonly runtime: Runtime,
    private readonly model: CausalModel,
    private readonly program: Program,
    private readonly drawer: TokenDrawer,
  ) {}

  /** @param onSent called once the rest is up to the runtime's thread: see `Runtime.compile` */
  static async create(runtime: Runtime, model: CausalModel, onSent?: () => void): Promise<Decoder> {
    const program = await runtime.compile(decoderGraph(model), model.weights, { spins: true, onSent });
    return new Decoder(runtime, model, program, new TokenDrawer(model.config.vocabSize));
  }

  /** One completion for each prompt (token ids, not empty), in the same order. */
  async generate(prompts: readonly (readonly number[])[], options: DecodeOptions): Promise<Completion[]> {
    const completions = new Array<Completion>(prompts.length);
    for await (const { prompt, ...completion } of this.stream(prompts, options)) completions[prompt] = completion;
    return completions;
  }

  /** The same, each completion as soon as it is finished. */
  async *stream(prompts: readonly (readonly number[])[], options: DecodeOptions): AsyncGenerator<Finished> {
    if (prompts.length === 0) return;
    const { maxNewTokens, signal } = options;
    const size = Math.min(options.batchSize, prompts.length);
    const longest = Math.max(...prompts.map(({ length }) => length));
    const waiting = new WaitingPrompts(prompts);
    const probabilities = await this.runtime.allocate('float32', [size, this.model.config.vocabSize]);
    const cache = await KeyValueCache.allocate(this.runtime, this.model.config, size, roundUp(longest));
    const fresh = await KeyValueCache.allocate(this.runtime, this.model.config, size, 1);
    const active: Row[] = [];
    const begun: Begun[] = [];
    const done = { finished: 0, total: prompts.length, tokens: 0 };
    let reported = 0;
    const finish = (row: Row): Finished => {
      done.finished++;
      const finishReason = options.eosTokenIds.has(row.ids.at(-1)!) ? 'stop' : 'length';
      return { prompt: row.prompt, ids: row.ids, logProbs: row.logProbs, finishReason };
    };
    const isDone = ({ ids }: Row): boolean => options.eosTokenIds.has(ids.at(-1)!) || ids.length === maxNewTokens;
    try {
      for (;;) {
        const ended: Row[] = [];
        while (active.length < size && (begun.length > 0 || !waiting.isEmpty())) {
          signal?.throwIfAborted();
          if (begun.length === 0) {
            for (const pass of passesOf(waiting.take(size - active.length), PROMPT_TOKENS)) {
              const { cache: prefix, rows } = await this.#promptPass(pass, options, probabilities);
              done.tokens += rows.length;
              ended.push(...rows.map(({ row }) => row).filter(isDone));
              begun.push({ cache: prefix, rows: rows.filter(({ row }) => !isDone(row)) });
            }
          }
          await fill(active, begun, cache, size);
        }
        const atOnce = ended.map(finish);
        if (done.tokens > reported) options.onProgress?.({ ...done });
        yield* atOnce;
        if (active.length === 0) return;

        signal?.throwIfAborted();
        await makeRoom(cache, active, longest + maxNewTokens);
        await this.#nextPass(active, options, { cache, fresh, probabilities });
        done.tokens += active.length;
        const finished = active.filter(isDone).map(finish);
        options.onProgress?.({ ...done });
        reported = done.tokens;
        await removeDone(active, isDone, cache);
        yield* finished;
      }
    } finally {
      await probabilities.dispose();
      for (const each of [cache, fresh, ...begun.map((prefix) => prefix.cache)]) await each.dispose();
    }
  }

  async dispose(): Promise<void> {
    await this.program.dispose();
  }

  /** Prompts, padded on the right, and the first token of each of their completions. */
  async #promptPass(prompts: readonly Prompt[], options: DecodeOptions, probabilities: DeviceTensor): Promise<Begun> {
    const length = Math.max(...prompts.map(({ ids }) => ids.length));
    const shape = [prompts.length, length];
    const inputIds = new Int32Array(prompts.length * length).fill(options.padTokenId);
    for (const [i, { ids }] of prompts.entries()) inputIds.set(ids, i * length);
    const cache = await KeyValueCache.allocate(this.runtime, this.model.config, prompts.length, length);
    const nothing = await KeyValueCache.allocate(this.runtime, this.model.config, prompts.length, 1);
    try {
      const started = prompts.flatMap(({ ids, positions }, at) =>
        positions.map((prompt) => {
          const row: Row = { prompt, random: options.random(prompt), ids: [], logProbs: [], length: ids.length };
          return { row, at };
        }),
      );
      const outputs = await this.#run(
        {
          input_ids: wrap('int32', shape, inputIds),
          past_length: vector(prompts.map(() => 0)),
          output_index: vector(prompts.map(({ ids }, i) => i * length + ids.length - 1)),
        },
        { past: nothing, fresh: cache, probabilities, options },
      );
      const draws = started.map(({ row, at }) => ({ row: at, random: row.random }));
      const drawn = await this.drawer.draw(draws, outputs, probabilities, options.sampling);
      for (const [i, { row }] of started.entries()) append(row, drawn[i]!);
      return { cache, rows: started };
    } catch (error) {
      await cache.dispose();
      throw error;
    } finally {
      await nothing.dispose();
    }
  }

  /** One more token of each row. */
  async #nextPass(
    rows: readonly Row[],
    options: DecodeOptions,
    { cache, fresh, probabilities }: { cache: KeyValueCache; fresh: KeyValueCache; probabilities: DeviceTensor },
  ): Promise<void> {
    const outputs = await this.#run(
      {
        input_ids: tensor(
          'int32',
          [rows.length, 1],
          rows.map(({ ids }) => ids.at(-1)!),
        ),
        past_length: vector(rows.map(({ length }) => length)),
        output_index: vector([...rows.keys()]),
      },
      { past: cache, fresh, probabilities, options },
    );
    // While the runtime copies, the tokens are drawn here.
    const blocks = rows.map(({ length: at }, row) => ({ from: row, to: row, length: 1, at }));
    const draws = rows.map(({ random }, row) => ({ row, random }));
    const [drawn] = await Promise.all([
      this.drawer.draw(draws, outputs, probabilities, options.sampling),
      fresh.copyRows(cache, blocks),
    ]);
    for (const [i, row] of rows.entries()) {
      row.length++;
      append(row, drawn[i]!);
    }
  }

  async #run(
    feeds: Record<string, Tensor>,
    on: { past: KeyValueCache; fresh: KeyValueCache; probabilities: DeviceTensor; options: DecodeOptions },
  ): Promise<Record<string, Tensor>> {
    const { sampling, adapter } = on.options;
    const count = feeds['output_index']!.shape[0]!;
    return this.program.run(
      { ...feeds, ...this.drawer.feeds(sampling), ...on.past.past(count), ...adapter },
      { ...on.fresh.fresh(count), probabilities: on.probabilities.rows(count) },
    );
  }
}

const vector = (values: readonly number[]): Tensor => tensor('int32', [values.length], values);

function append(row: Row, { token, logProb }: DrawnToken): void {
  row.ids.push(token);
  row.logProbs.push(logProb);
}

/** Gives a cache more room, an eighth of what it has or a step, where a row has filled it; never more than `most`. */
async function makeRoom(cache: KeyValueCache, active: readonly Row[], most: number): Promise<void> {
  const lengths = active.map(({ length }) => length);
  if (Math.max(...lengths) < cache.capacity) return;
  const larger = roundUp(Math.max(cache.capacity + 1, cache.capacity * GROWTH));
  await cache.grow(Math.min(larger, roundUp(most)), lengths);
}

/** Gives free places to rows that have begun, in their order; a cache that nothing waits in any more is freed. */
async function fill(active: Row[], begun: Begun[], cache: KeyValueCache, size: number): Promise<void> {
  while (active.length < size && begun.length > 0) {
    const { cache: prefix, rows } = begun[0]!;
    const placed = rows.splice(0, size - active.length);
    const copies = placed.map(({ row, at }, i) => ({ from: at, to: active.length + i, length: row.length }));
    if (copies.length > 0) await prefix.copyRows(cache, copies);
    active.push(...placed.map(({ row }) => row));
    if (rows.length > 0) return;
    begun.shift();
    await prefix.dispose();
  }
}

/** Takes rows that are done out of the batch; the last ones move to their places. */
async function removeDone(active: Row[], isDone: (row: Row) => boolean, cache: KeyValueCache): Promise<void> {
  const moves = [];
  for (let at = active.length - 1; at >= 0; at--) {
    if (!isDone(active[at]!)) continue;
    const last = active.pop()!;
    if (at === active.length) continue;
    active[at] = last;
    moves.push({ from: active.length, to: at, length: last.length });
  }
  if (moves.length > 0) await cache.copyRows(cache, moves);
}
