import { initialAdapter, openAdapter, writeAdapter, checkAdapter } from '../checkpoints/adapter.js';
import { loraOf, type AdapterConfig } from '../checkpoints/adapter-config.js';
import { fingerprint } from '../checkpoints/fingerprint.js';
import { loadTensors } from '../checkpoints/model-folder.js';
import type { SftConfig } from '../config/stages.js';
import { UserError } from '../errors.js';
import { placeOf, type Row } from '../data/row.js';
import { writeRunReport } from '../evaluation/run-report.js';
import { Decoder } from '../generation/decoder.js';
import { openPolicy, requireTokenizer, writingModel, type Policy } from '../generation/policy.js';
import { unfiltered } from '../generation/sampling-settings.js';
import type { Tensor } from '../graph/tensor.js';
import { withLocalModels } from '../hub/local-models.js';
import { requireMemory } from '../memory/require.js';
import type { MaskedSequence } from '../models/packed-tokens.js';
import { stream } from '../random.js';
import { writeFolderAtomic } from '../runs/atomic.js';
import type { StageContext } from '../runs/events.js';
import { openRunFolder, type RunFolder } from '../runs/run-folder.js';
import { encodePair } from '../text/encode-pair.js';
import { packBestFit } from '../text/pack.js';
import { samplesOf, type TextSample } from '../text/samples.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { chunks } from '../training/chunks.js';
import { packedDropoutFeeds } from '../training/dropout.js';
import { causalGraph, causalLossFeeds, countTokens, sum } from '../training/language.js';
import { Learner, type Feeds } from '../training/learner.js';
import { withLessMemory } from '../training/less-memory.js';
import { trainLoop, type Metrics } from '../training/loop.js';
import { openRuntime } from '../training/open-runtime.js';
import { EpochOrder } from '../training/order.js';
import { loadRows } from '../training/rows.js';
import { scheduleOf } from '../training/schedule.js';
import { sftMemory, sftWays } from './sft/memory.js';

/**
 * Supervised fine-tuning of a LoRA adapter on prompt → completion, with the published settings as defaults.
 *
 * Where it departs from the published script: prompt and completion are tokenised as one and split by their tokens, so
 * that the mask never shifts; EOS is learned in every sample, also after truncation and when it is the padding token
 * too; validation rows of the one split choose the weights that are kept; everything is seeded and resumes exactly. The
 * validation loss is the cross entropy whatever is learned: dft's loss is small also where a token is thought impossible.
 *
 * Leaves `adapter/` in PEFT's layout: the weights with the lowest validation loss.
 */
export async function sft(config: SftConfig, context: StageContext): Promise<string> {
  return withLessMemory(learn, config, context, config.sft.batchSize);
}

async function learn(given: SftConfig, context: StageContext): Promise<string> {
  const config = await withLocalModels(given, context);
  const section = config.sft;
  const rows = await loadRows(config.data, ['sft_train'], 'optional');
  const { quantization } = config;
  const policy = await openPolicy(config.model, undefined, { quantization });
  requireMemory('sft', config, {
    plan: () => sftMemory(policy.config, config),
    ways: () => sftWays(policy.config, config),
  });
  const start = await startingAdapter(policy, config);
  const samples = new SampleSet(rows.train, policy, config, section.packing);
  const heldOut = new SampleSet(rows.validation, policy, config);
  const fingerprints = {
    ...rows.fingerprints,
    model: await fingerprint(config.model),
    ...(config.adapter === undefined ? {} : { adapter: await fingerprint(config.adapter) }),
  };
  const onEvent = context.onEvent.bind(context);
  context.signal?.throwIfAborted();
  const run = await openRunFolder({
    ...config,
    stage: 'sft',
    config,
    batchSize: section.batchSize,
    fingerprints,
    onEvent,
  });
  const runtime = await openRuntime(config, context);
  try {
    const lora = loraOf(start);
    const training = causalGraph(policy.config, {
      lora,
      quantization,
      recompute: section.recompute,
      training: lora.dropout > 0,
      statistics: true,
      lossType: section.lossType,
    });
    const learner = await Learner.create(runtime, {
      graph: training.graph,
      loss: training.loss,
      trainable: training.context.loraWeights,
      initial: start.tensors,
      frozen: policy.model.weights,
      adamw: section,
    });
    const evaluation = await runtime.compile(
      causalGraph(policy.config, { lora, quantization, statistics: true }).graph,
      policy.model.weights,
    );
    const decoder = await Decoder.create(runtime, { ...(await writingModel(policy, runtime.device)), lora });

    const perStep = section.batchSize * section.gradientAccumulationSteps;
    const order = new EpochOrder(samples.count, perStep, config.seed);
    const totalSteps = order.totalSteps(section.epochs, section.maxSteps);
    const atOnce = run.microBatch(section.batchSize);
    let tokensSeen = 0;
    run.emit({ type: 'start', stage: 'sft', totalSteps, out: run.path });

    await trainLoop({
      ...section,
      run,
      stage: 'sft',
      signal: context.signal,
      totalSteps,
      stepsPerEpoch: order.stepsPerEpoch,
      schedule: scheduleOf(section, totalSteps),
      learner,
      replay: context.replay,
      best: { metric: 'eval_loss', direction: 'lower' },
      step: async (step, rate) => {
        const pieces = chunks([...order.at(step).entries()], atOnce);
        const items = pieces.map((piece) => piece.map(([row, id]) => ({ row, sequences: samples.item(id) })));
        const batches = items.map((own) => own.flatMap(({ sequences }) => sequences));
        const masks = items.map((own) => packedDropoutFeeds(config.seed, step, own));
        const { tokens, ...metrics } = await sftStep(learner, batches, rate, masks);
        tokensSeen += tokens;
        return metrics;
      },
      rows: (step) => order.at(step).flatMap((i) => samples.places(i)),
      totals: () => ({ num_tokens: tokensSeen }),
      carried: {
        save: () => tokensSeen,
        load: (state) => {
          tokensSeen = Number(state);
        },
      },
      evaluate: async () => {
        let [loss, correct, tokens] = [0, 0, 0];
        for (const ids of chunks([...Array(heldOut.count).keys()], atOnce)) {
          context.signal?.throwIfAborted();
          const batch = ids.flatMap((id) => heldOut.item(id));
          const result = await evaluation.run({ ...causalLossFeeds(batch, 1), ...learner.weights });
          loss += sum(result['token_loss']!);
          correct += sum(result['token_correct']!);
          tokens += result['token_loss']!.data.length;
        }
        return tokens === 0 ? {} : { eval_loss: loss / tokens, eval_mean_token_accuracy: correct / tokens };
      },
      after: async (step) => {
        if (step % section.sampleSteps !== 0 && step !== totalSteps) return;
        await writeSamples(run, decoder, policy, {
          step,
          rows: rows.validation,
          config,
          learner,
          signal: context.signal,
        });
      },
    });

    const weights = await learner.optimizer.readWeights();
    await writeFolderAtomic(run.file('adapter'), (folder) =>
      writeAdapter(folder, { config: start.config, tensors: weights }),
    );
    await writeRunReport(run.path);
    await run.finish();
    return run.path;
  } finally {
    run.close();
    await runtime.close();
  }
}

/**
 * One optimizer step on micro-batches, with the feeds that dropout takes of each: the loss is the sum over all supervised
 * tokens of the step divided by their number, as TRL's SFTTrainer has it; accuracy and entropy are means of the
 * micro-batches' means.
 */
export async function sftStep(
  learner: Learner,
  batches: readonly (readonly MaskedSequence[])[],
  rate: number,
  masks: readonly Feeds[],
): Promise<Metrics & { tokens: number }> {
  const { tokens, supervised } = countTokens(batches.flat());
  const feeds = batches.map((batch, i) => learner.accepted({ ...causalLossFeeds(batch, supervised), ...masks[i] }));
  const { reports, gradNorm } = await learner.step(feeds, rate);
  const meanOf = (name: string): number =>
    reports.reduce((total, report) => total + sum(report[name]!) / report[name]!.data.length, 0) / reports.length;
  return {
    loss: reports.reduce((total, report) => total + Number(report['loss']!.data[0]), 0),
    grad_norm: gradNorm,
    entropy: meanOf('token_entropy'),
    mean_token_accuracy: meanOf('token_correct'),
    tokens,
  };
}

/** A new adapter, or the one to go on from with its own rank and targets. */
async function startingAdapter(
  policy: Policy,
  config: SftConfig,
): Promise<{ config: AdapterConfig; tensors: Map<string, Tensor<'float32'>> }> {
  if (config.adapter !== undefined) {
    const given = await openAdapter(config.adapter);
    checkAdapter(given, policy.folder.weights);
    if (given.config.modulesToSave !== undefined) {
      throw new UserError({
        code: 'adapter.saved-modules',
        message: `The adapter holds whole modules (${given.config.modulesToSave.join(', ')}), which SFT does not train on.`,
        where: config.adapter,
        fix: 'Merge it into its model, and start a new adapter from there.',
      });
    }
    return { config: given.config, tensors: await loadTensors(given.weights, given.weights.keys()) };
  }
  const fresh = adapterConfig(config.lora, config.model);
  const random = stream(config.seed, 'adapter');
  return { config: fresh, tensors: initialAdapter(policy.folder.weights, fresh, () => random.uniform()) };
}

const adapterConfig = (lora: SftConfig['lora'], base: string): AdapterConfig => ({
  r: lora.r,
  loraAlpha: lora.alpha,
  loraDropout: lora.dropout,
  targetModules: lora.targetModules,
  useRslora: false,
  taskType: 'CAUSAL_LM',
  baseModelNameOrPath: base,
});

/**
 * Samples of rows, one for each template, encoded when they are first needed; one without room is refused at once.
 * Packed, each item is a pack of samples, for which all are encoded at once.
 */
class SampleSet {
  readonly #samples: (TextSample & { readonly row: Row; encoded?: MaskedSequence })[];
  readonly #tokenizer: Tokenizer;
  readonly #eosId: number;
  readonly #packs: readonly (readonly number[])[] | undefined;

  constructor(
    rows: readonly Row[],
    policy: Policy,
    private readonly config: SftConfig,
    packed = false,
  ) {
    this.#tokenizer = requireTokenizer(policy);
    this.#eosId = this.#tokenizer.requireSpecial('eos', config.model);
    this.#samples = rows.flatMap((row) =>
      samplesOf(row, config.data.templates, { chat: policy.chat, model: config.model }).map((sample) => ({
        ...sample,
        row,
      })),
    );
    for (const [i, { prompt }] of this.#samples.entries()) {
      // A token holds at least one byte, so a shorter prompt leaves room for a token of the completion and for EOS.
      if (Buffer.byteLength(prompt) > config.sft.maxLength - 2) this.#encoded(i);
    }
    if (packed) {
      const lengths = this.#samples.map((_, i) => this.#encoded(i).inputIds.length);
      this.#packs = packBestFit(lengths, config.sft.maxLength);
    }
  }

  get count(): number {
    return (this.#packs ?? this.#samples).length;
  }

  /** Where the rows of an item stand. */
  places(index: number): string[] {
    return (this.#packs?.[index] ?? [index]).map((i) => placeOf(this.#samples[i]!.row));
  }

  /** An item's samples, of which none attends to another. */
  item(index: number): MaskedSequence[] {
    return (this.#packs?.[index] ?? [index]).map((at) => this.#encoded(at));
  }

  #encoded(index: number): MaskedSequence {
    const sample = this.#samples[index]!;
    sample.encoded ??= this.#encode(sample);
    return sample.encoded;
  }

  #encode({ row, prompt, completion }: TextSample & { readonly row: Row }): MaskedSequence {
    const { inputIds, completionMask } = encodePair(this.#tokenizer, prompt, completion, {
      eosId: this.#eosId,
      maxLength: this.config.sft.maxLength,
      where: placeOf(row),
    });
    return { inputIds, completionMask: this.config.sft.completionOnlyLoss ? completionMask : inputIds.map(() => 1) };
  }
}

async function writeSamples(
  run: RunFolder,
  decoder: Decoder,
  policy: Policy,
  asked: {
    readonly step: number;
    readonly rows: readonly Row[];
    readonly config: SftConfig;
    readonly learner: Learner;
    readonly signal: AbortSignal | undefined;
  },
): Promise<void> {
  const { step, rows, config, learner, signal } = asked;
  const { samples, sampling } = config.sft;
  const tokenizer = requireTokenizer(policy);
  const model = { chat: policy.chat, model: config.model };
  const prompts = rows.flatMap((row) => samplesOf(row, config.data.templates, model)).slice(0, samples);
  const completions = await decoder.generate(
    prompts.map(({ prompt }) => tokenizer.encode(prompt)),
    {
      ...policy,
      maxNewTokens: sampling.maxNewTokens,
      sampling: { ...unfiltered, ...sampling },
      batchSize: Math.max(1, samples),
      random: (prompt) => stream(config.seed, 'sample', step, prompt),
      adapter: learner.weights,
      signal,
    },
  );
  for (const [i, { ids }] of completions.entries()) {
    const completion = tokenizer.decode(ids, { skipSpecialTokens: true });
    run.emit({ type: 'sample', step, label: prompts[i]!.template, prompt: prompts[i]!.prompt, completion });
  }
}
