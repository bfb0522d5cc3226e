import { initialAdapter, writeAdapter } from '../checkpoints/adapter.js';
import { loraOf, type AdapterConfig } from '../checkpoints/adapter-config.js';
import { fingerprint } from '../checkpoints/fingerprint.js';
import type { DpoConfig } from '../config/stages.js';
import { writeRunReport } from '../evaluation/run-report.js';
import { openPolicy, requireTokenizer, type Policy } from '../generation/policy.js';
import { Scorer } from '../generation/scorer.js';
import { zeros, type Tensor } from '../graph/tensor.js';
import { withLocalModels } from '../hub/local-models.js';
import { requireMemory } from '../memory/require.js';
import type { MaskedSequence } from '../models/packed-tokens.js';
import { stream } from '../random.js';
import { writeFolderAtomic } from '../runs/atomic.js';
import { Interrupted, type StageContext } from '../runs/events.js';
import { openRunFolder } from '../runs/run-folder.js';
import { encodePair } from '../text/encode-pair.js';
import { chunks } from '../training/chunks.js';
import { Learner } from '../training/learner.js';
import { withLessMemory } from '../training/less-memory.js';
import { trainLoop, type Metrics } from '../training/loop.js';
import { mergedPolicy } from '../training/merged-policy.js';
import { openRuntime } from '../training/open-runtime.js';
import { EpochOrder } from '../training/order.js';
import { loadPairs, type Pair } from '../training/pairs.js';
import { scheduleOf } from '../training/schedule.js';
import { dpoFeeds, dpoGraph, type ReferenceLogProbs } from './dpo/graph.js';
import { dpoMemory, dpoWays } from './dpo/memory.js';
import { dpoStep, pairMetrics, type PairBatch } from './dpo/step.js';

/** Where the policy that DPO starts from stands in the run folder, when an adapter was merged into it. */
const POLICY = 'policy';

/**
 * Direct preference optimisation (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290) of a new LoRA adapter on pairs
 * of texts after one prompt. The reference is the policy without the adapter; what it makes of each text is computed
 * once, before the first step. A given SFT adapter is merged first, so that the reference is the model it made.
 *
 * No dropout, as log-probabilities are compared; prompt and text are tokenised as one, and EOS is always learned.
 *
 * Leaves `adapter/` in PEFT's layout, for the model in `policy/` when an adapter was merged and for `model` otherwise:
 * the weights with the lowest validation loss.
 */
export async function dpo(config: DpoConfig, context: StageContext): Promise<string> {
  return withLessMemory(learn, config, context, config.dpo.batchSize);
}

async function learn(given: DpoConfig, context: StageContext): Promise<string> {
  const config = await withLocalModels(given, context);
  const section = config.dpo;
  const pairs = await loadPairs(config.data);
  const { quantization } = config;
  const asked = await openPolicy(config.model, config.adapter, { quantization });
  requireMemory('dpo', config, {
    plan: () => dpoMemory(asked.config, config),
    ways: () => dpoWays(asked.config, config),
  });
  const train = pairs.train.map((pair) => encoded(pair, asked, config));
  const heldOut = pairs.validation.map((pair) => encoded(pair, asked, config));
  const fingerprints = {
    ...pairs.fingerprints,
    model: await fingerprint(config.model),
    ...(config.adapter === undefined ? {} : { adapter: await fingerprint(config.adapter) }),
  };
  const onEvent = context.onEvent.bind(context);
  const run = await openRunFolder({
    ...config,
    stage: 'dpo',
    config,
    batchSize: section.batchSize,
    fingerprints,
    onEvent,
  });
  const runtime = await openRuntime(config, context);
  try {
    const base =
      config.adapter === undefined
        ? config.model
        : await mergedPolicy(runtime, { model: config.model, adapter: config.adapter, out: run.file(POLICY) });
    const policy = await openPolicy(base, undefined, { quantization });
    const adapterConfig = newAdapter(config, base);
    const random = stream(config.seed, 'adapter');
    const initial = initialAdapter(policy.folder.weights, adapterConfig, () => random.uniform());
    const lora = loraOf({ config: adapterConfig });
    const training = dpoGraph(policy.config, lora, { ...section, quantization });
    const learner = await Learner.create(runtime, {
      graph: training.context.graph,
      loss: training.loss,
      trainable: training.context.loraWeights,
      initial,
      frozen: policy.model.weights,
      adamw: section,
    });
    const evaluation = await runtime.compile(
      dpoGraph(policy.config, lora, { ...section, quantization }).context.graph,
      policy.model.weights,
    );

    const atOnce = run.microBatch(section.batchSize);
    const order = new EpochOrder(train.length, section.batchSize * section.gradientAccumulationSteps, config.seed);
    const totalSteps = order.totalSteps(section.epochs, section.maxSteps);
    run.emit({ type: 'start', stage: 'dpo', totalSteps, out: run.path });

    const scorer = await Scorer.create(runtime, { ...policy.model, lora });
    const reference = Object.fromEntries(
      [...initial].map(([name, { shape }]): [string, Tensor] => [name, zeros('float32', shape)]),
    );
    const references = async (side: readonly EncodedPair[]): Promise<ReferenceLogProbs[]> => {
      const known: ReferenceLogProbs[] = [];
      for (const some of chunks(side, atOnce)) {
        if (context.signal?.aborted === true) throw new Interrupted(run.path, run.resumeFrom?.step ?? 0);
        const options = { temperature: 1, batchSize: atOnce };
        const texts = some.flatMap(({ chosen, rejected }) => [chosen, rejected]);
        const scores = await scorer.logProbabilities(texts, { ...options, adapter: reference });
        const sums = scores.map((logprobs) => logprobs.reduce((a, b) => a + b, 0));
        for (const i of some.keys()) known.push({ chosen: sums[2 * i]!, rejected: sums[2 * i + 1]! });
        run.emit({ type: 'progress', task: 'reference', done: known.length, total: side.length });
      }
      return known;
    };
    const [trainReference, heldOutReference] = [await references(train), await references(heldOut)];
    await scorer.dispose();
    const batchOf = (
      side: readonly EncodedPair[],
      known: readonly ReferenceLogProbs[],
      indices: readonly number[],
    ): PairBatch => ({
      texts: [...indices.map((i) => side[i]!.chosen), ...indices.map((i) => side[i]!.rejected)],
      reference: indices.map((i) => known[i]!),
    });

    let tokensSeen = 0;
    await trainLoop({
      ...section,
      run,
      stage: 'dpo',
      signal: context.signal,
      totalSteps,
      stepsPerEpoch: order.stepsPerEpoch,
      schedule: scheduleOf(section, totalSteps),
      learner,
      replay: context.replay,
      best: { metric: 'eval_loss', direction: 'lower' },
      step: async (step, rate) => {
        const batches = chunks(order.at(step), atOnce).map((ids) => batchOf(train, trainReference, ids));
        const { tokens, ...metrics } = await dpoStep(learner, batches, rate, section.beta);
        tokensSeen += tokens;
        return metrics;
      },
      rows: (step) => order.at(step).map((i) => train[i]!.place),
      totals: () => ({ num_tokens: tokensSeen }),
      carried: {
        save: () => tokensSeen,
        load: (state) => {
          tokensSeen = Number(state);
        },
      },
      evaluate: async () => {
        const totals: Metrics = {};
        for (const ids of chunks([...heldOut.keys()], atOnce)) {
          const batch = batchOf(heldOut, heldOutReference, ids);
          const feeds = learner.accepted(dpoFeeds(batch.texts, batch.reference, ids.length));
          const report = await evaluation.run({ ...feeds, ...learner.weights });
          const metrics = { loss: Number(report['loss']!.data[0]), ...pairMetrics(batch, report, section.beta) };
          for (const [name, value] of Object.entries(metrics)) {
            totals[`eval_${name}`] = (totals[`eval_${name}`] ?? 0) + (value * ids.length) / heldOut.length;
          }
        }
        return totals;
      },
    });

    const weights = await learner.optimizer.readWeights();
    await writeFolderAtomic(run.file('adapter'), (folder) =>
      writeAdapter(folder, { config: adapterConfig, tensors: weights }),
    );
    await writeRunReport(run.path);
    await run.finish();
    return run.path;
  } finally {
    run.close();
    await runtime.close();
  }
}

interface EncodedPair {
  readonly chosen: MaskedSequence;
  readonly rejected: MaskedSequence;
  readonly place: string;
}

function encoded(pair: Pair, policy: Policy, config: DpoConfig): EncodedPair {
  const tokenizer = requireTokenizer(policy);
  const options = {
    eosId: tokenizer.requireSpecial('eos', config.model),
    maxLength: config.dpo.maxLength,
    where: pair.place,
  };
  return {
    chosen: encodePair(tokenizer, pair.prompt, pair.chosen, options),
    rejected: encodePair(tokenizer, pair.prompt, pair.rejected, options),
    place: pair.place,
  };
}

const newAdapter = ({ lora }: DpoConfig, base: string): AdapterConfig => ({
  r: lora.r,
  loraAlpha: lora.alpha,
  loraDropout: lora.dropout,
  targetModules: lora.targetModules,
  useRslora: false,
  taskType: 'CAUSAL_LM',
  baseModelNameOrPath: base,
});
