import { tensor, wrap, type Tensor } from '../graph/tensor.js';
import type { CausalConfig } from '../models/config/causal.js';
import { pastName, presentName, causalDecoder } from '../models/causal.js';
import { ModelContext, type ContextOptions, type LoraSettings, type Quantization } from '../nn/context.js';
import { gatherRows } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import type { DeviceTensor, Program, Runtime, StoredTensor } from '../runtime/runtime.js';
import { sampleToken, SamplerScratch } from './sampler.js';
import type { SamplingSettings } from './sampling-settings.js';

/** A causal model as the generation code takes it: the base's weights in their files, an adapter's as feeds. */
export interface CausalModel {
  readonly config: CausalConfig;
  readonly weights: ReadonlyMap<string, StoredTensor>;
  readonly lora?: LoraSettings;
  /** The form of the base's matrices, for which `weights` holds what it needs; default float32. */
  readonly quantization?: Quantization;
}

/** How a graph that only computes sees a model: no dropout. */
export const inferenceOptions = ({ lora, quantization }: CausalModel): ContextOptions => ({
  quantization,
  ...(lora === undefined ? {} : { lora: { ...lora, dropout: 0 } }),
});

export interface DecodeOptions {
  readonly maxNewTokens: number;
  readonly sampling: SamplingSettings;
  /** Any of these ends a completion, and is its last token. */
  readonly eosTokenIds: ReadonlySet<number>;
  readonly padTokenId: number;
  /** Prompts decoded together. */
  readonly batchSize: number;
  /** The random numbers of a prompt, by its position in the list: its own stream, whatever it is batched with. */
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
  readonly finishReason: 'stop' | 'length';
}

/** Cache lengths are multiples of this, so that few shapes occur. */
const CACHE_STEP = 32;

interface Row {
  readonly prompt: number;
  readonly random: { uniform(): number };
  readonly ids: number[];
  /** Tokens in the cache. */
  length: number;
  done: boolean;
}

/**
 * Autoregressive decoding with a key/value cache that stays on the device. Rows of a batch have lengths of their own; a
 * finished row is dropped from the batch once half of it is done.
 */
export class Decoder {
  private constructor(
    private readonly runtime: Runtime,
    private readonly model: CausalModel,
    private readonly program: Program,
    private readonly compaction: Program,
    private readonly scratch: SamplerScratch,
  ) {}

  static async create(runtime: Runtime, model: CausalModel): Promise<Decoder> {
    const context = new ModelContext(newGraph(), inferenceOptions(model));
    causalDecoder(context, model.config);
    const program = await runtime.compile(context.graph, model.weights);
    const compaction = await runtime.compile(compactionGraph(model.config));
    return new Decoder(runtime, model, program, compaction, new SamplerScratch(model.config.vocabSize));
  }

  /** One completion for each prompt (token ids, not empty), in the same order. */
  async generate(prompts: readonly (readonly number[])[], options: DecodeOptions): Promise<Completion[]> {
    const completions = new Array<Completion>(prompts.length);
    // Prompts of similar length share a batch, so that little of the prompt pass is padding.
    const order = [...prompts.keys()].sort((a, b) => prompts[a]!.length - prompts[b]!.length || a - b);
    let [finished, tokens] = [0, 0];
    for (let start = 0; start < order.length; start += options.batchSize) {
      const rows = order.slice(start, start + options.batchSize).map((prompt): Row => {
        return { prompt, random: options.random(prompt), ids: [], length: prompts[prompt]!.length, done: false };
      });
      await this.#decode(rows, prompts, options, (written, ended) => {
        tokens += written;
        finished += ended;
        options.onProgress?.({ finished, total: prompts.length, tokens });
      });
      for (const { prompt, ids } of rows) {
        completions[prompt] = { ids, finishReason: options.eosTokenIds.has(ids.at(-1)!) ? 'stop' : 'length' };
      }
    }
    return completions;
  }

  async dispose(): Promise<void> {
    await this.program.dispose();
    await this.compaction.dispose();
  }

  async #decode(
    rows: readonly Row[],
    prompts: readonly (readonly number[])[],
    options: DecodeOptions,
    report: (written: number, ended: number) => void,
  ): Promise<void> {
    const longest = Math.max(...rows.map(({ length }) => length));
    const room = Math.ceil((longest + options.maxNewTokens) / CACHE_STEP) * CACHE_STEP;
    let active = [...rows];
    let cache = await this.#allocate(active.length, room);
    try {
      let logits = await this.#promptPass(active, prompts, longest, options, cache);
      for (let step = 0; step < options.maxNewTokens; step++) {
        if (options.signal?.aborted === true) throw options.signal.reason;
        let [written, ended] = [0, 0];
        for (const [i, row] of active.entries()) {
          if (row.done) continue;
          const { vocabSize } = this.model.config;
          const scores = (logits.data as Float32Array).subarray(i * vocabSize, (i + 1) * vocabSize);
          const token = sampleToken(scores, options.sampling, row.random, this.scratch);
          row.ids.push(token);
          row.done = options.eosTokenIds.has(token) || row.ids.length === options.maxNewTokens;
          written++;
          if (row.done) ended++;
        }
        report(written, ended);
        const going = active.filter((row) => !row.done);
        if (going.length === 0) return;
        if (going.length * 2 <= active.length) {
          const smaller = await this.#compact(cache, active, going, room);
          await disposeAll(cache);
          [cache, active] = [smaller, going];
        }
        logits = await this.#nextPass(active, options, cache);
      }
    } finally {
      await disposeAll(cache);
    }
  }

  /** The whole prompts, padded on the right; the padding's keys are overwritten as the rows grow. */
  async #promptPass(
    rows: readonly Row[],
    prompts: readonly (readonly number[])[],
    length: number,
    options: DecodeOptions,
    cache: Cache,
  ): Promise<Tensor> {
    const inputIds = new Int32Array(rows.length * length).fill(options.padTokenId);
    for (const [i, row] of rows.entries()) inputIds.set(prompts[row.prompt]!, i * length);
    return this.#run(cache, options, {
      input_ids: wrap('int32', [rows.length, length], inputIds),
      position_ids: wrap(
        'int32',
        [rows.length, length],
        inputIds.map((_, at) => at % length),
      ),
      last_index: tensor(
        'int32',
        [rows.length],
        rows.map((row) => row.length - 1),
      ),
      total_length: tensor('int32', [], [length]),
      output_index: tensor(
        'int32',
        [rows.length],
        rows.map((row, i) => i * length + row.length - 1),
      ),
    });
  }

  /** One new token of each row; rows that are done repeat their last, which nothing reads. */
  async #nextPass(rows: readonly Row[], options: DecodeOptions, cache: Cache): Promise<Tensor> {
    const positions = rows.map((row) => (row.done ? row.length - 1 : row.length));
    for (const row of rows) if (!row.done) row.length++;
    return this.#run(cache, options, {
      input_ids: tensor(
        'int32',
        [rows.length, 1],
        rows.map((row) => row.ids.at(-1)!),
      ),
      position_ids: tensor('int32', [rows.length, 1], positions),
      last_index: tensor('int32', [rows.length], positions),
      total_length: tensor('int32', [], [Math.max(...positions) + 1]),
      output_index: tensor('int32', [rows.length], [...rows.keys()]),
    });
  }

  async #run(cache: Cache, options: DecodeOptions, feeds: Record<string, Tensor>): Promise<Tensor> {
    const past = mapKeys(cache, (name) => `past_${name}`);
    const present = mapKeys(cache, (name) => `present_${name}`);
    const { logits } = await this.program.run({ ...feeds, ...past, ...options.adapter }, present);
    return logits!;
  }

  async #compact(cache: Cache, from: readonly Row[], to: readonly Row[], room: number): Promise<Cache> {
    const smaller = await this.#allocate(to.length, room);
    const rows = tensor(
      'int32',
      [to.length],
      to.map((row) => from.indexOf(row)),
    );
    await this.compaction.run(
      { rows, ...mapKeys(cache, (name) => `past_${name}`) },
      mapKeys(smaller, (name) => `present_${name}`),
    );
    return smaller;
  }

  async #allocate(batch: number, room: number): Promise<Cache> {
    const { numHiddenLayers, numKeyValueHeads, headDim } = this.model.config;
    const cache = new Map<string, DeviceTensor>();
    for (let layer = 0; layer < numHiddenLayers; layer++) {
      for (const which of ['key', 'value'] as const) {
        const shape = [batch, numKeyValueHeads, room, headDim];
        cache.set(`${which}.${layer}`, await this.runtime.allocate('float32', shape));
      }
    }
    return cache;
  }
}

/** Tensors named `key.i` and `value.i`. */
type Cache = ReadonlyMap<string, DeviceTensor>;

const mapKeys = (cache: Cache, rename: (name: string) => string): Record<string, DeviceTensor> =>
  Object.fromEntries([...cache].map(([name, buffer]) => [rename(name), buffer]));

async function disposeAll(cache: Cache): Promise<void> {
  for (const buffer of cache.values()) await buffer.dispose();
}

/** Copies some rows of every cache: `past_…` (B, …), `rows` int32 (N) → `present_…` (N, …). */
function compactionGraph(config: CausalConfig): ReturnType<typeof newGraph> {
  const graph = newGraph();
  const rows = graph.input('rows', 'int32', ['N']);
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    for (const which of ['key', 'value'] as const) {
      const past = graph.input(pastName(layer, which), 'float32', ['B', config.numKeyValueHeads, 'M', config.headDim]);
      graph.output(presentName(layer, which), gatherRows(past, rows));
    }
  }
  return graph;
}
