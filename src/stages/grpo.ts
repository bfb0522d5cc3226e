import { z } from 'zod';
import { initialAdapter, writeAdapter } from '../checkpoints/adapter.js';
import { loraOf, type AdapterConfig } from '../checkpoints/adapter-config.js';
import { fingerprint } from '../checkpoints/fingerprint.js';
import { openModelFolder, type ModelFolder } from '../checkpoints/model-folder.js';
import { lossWarnings } from '../config/grpo-loss.js';
import type { GrpoConfig } from '../config/stages.js';
import { placeOf, type Row } from '../data/row.js';
import { wordsOf } from '../data/templates.js';
import { UserError } from '../errors.js';
import { writeRunReport } from '../evaluation/run-report.js';
import { checkSequence } from '../generation/check-sequence.js';
import { Decoder } from '../generation/decoder.js';
import { openCausal, openPolicy, requireTokenizer, writingModel, type Policy } from '../generation/policy.js';
import { Scorer } from '../generation/scorer.js';
import { zeros, type Tensor } from '../graph/tensor.js';
import { withLocalModels } from '../hub/local-models.js';
import { requireMemory } from '../memory/require.js';
import { isClassifier, type ModelConfig } from '../models/config/model-config.js';
import { stream } from '../random.js';
import { writeFolderAtomic } from '../runs/atomic.js';
import type { StageContext } from '../runs/events.js';
import { openRunFolder } from '../runs/run-folder.js';
import { CopyIndex } from '../text/copy-index.js';
import { samplesOf } from '../text/samples.js';
import { Learner } from '../training/learner.js';
import { withLessMemory } from '../training/less-memory.js';
import { trainLoop, type Metrics } from '../training/loop.js';
import { mergedPolicy } from '../training/merged-policy.js';
import { openRuntime } from '../training/open-runtime.js';
import { EpochOrder } from '../training/order.js';
import { loadRows } from '../training/rows.js';
import { scheduleOf } from '../training/schedule.js';
import { Alarms, alarmsSchema } from './grpo/alarms/alarms.js';
import { learnedTokens, type RolloutSample } from './grpo/batch.js';
import {
  adjusted,
  appliedCoef,
  entropyControlSchema,
  initialControl,
  type EntropyControl,
} from './grpo/entropy-control.js';
import { CRITERION, EarlyStopping, earlyStoppingState } from './grpo/early-stopping.js';
import { grpoGraph } from './grpo/graph.js';
import { lossSettings } from './grpo/loss-settings.js';
import { grpoMemory, grpoWays } from './grpo/memory.js';
import { Rewards, rewardsState } from './grpo/rewards.js';
import { rollOut, samplesSchema, type Rollout, type RolloutPrompt, type RolloutTools } from './grpo/rollout.js';
import { grpoStep } from './grpo/step.js';

/** Where the policy that GRPO starts from stands in the run folder, when an adapter was merged into it. */
const POLICY = 'policy';

/** Completions of each held-out prompt, and how many of them are shown. */
const EVAL_SAMPLES = 2;
const SHOWN_SAMPLES = 2;

/** Held-out jokes that the reward model is calibrated on. */
const HUMAN_TEXTS = 256;

/**
 * Group relative policy optimisation (Shao et al., 2024, https://arxiv.org/abs/2402.03300) of a new LoRA adapter: the
 * reward model's logit of "humorous" on prompt + completion, against a KL to the policy without the adapter.
 *
 * Where it departs from the published script: top-p and top-k reach the sampler; a given SFT adapter is merged anew for
 * every run and the merge checked; adapter weights are float32; no dropout where log-probabilities are compared; the
 * reward model reads batches; held-out prompts are rewarded along the way; a run resumes, a rollout in mid-use included.
 *
 * Leaves `adapter/` in PEFT's layout, for the model in `policy/` when an adapter was merged and for `model` otherwise.
 */
export async function grpo(config: GrpoConfig, context: StageContext): Promise<string> {
  return withLessMemory(learn, config, context, divisible(config));
}

/** Completions at once that can be made fewer; where the tokens of a whole batch are ranked at once, none can. */
const divisible = ({ grpo: { microBatchSize, batchSize, topEntropyQuantile } }: GrpoConfig): number =>
  topEntropyQuantile < 1 ? 1 : (microBatchSize ?? batchSize);

async function learn(given: GrpoConfig, context: StageContext): Promise<string> {
  const config = await withLocalModels(given, context);
  const section = config.grpo;
  const rows = await loadRows(config.data, ['sft_train'], 'optional');
  const fingerprints = {
    ...rows.fingerprints,
    model: await fingerprint(config.model),
    ...(config.rm === undefined ? {} : { rm: await fingerprint(config.rm) }),
    ...(config.adapter === undefined ? {} : { adapter: await fingerprint(config.adapter) }),
  };
  const asked = await openPolicy(config.model, config.adapter);
  const judge = config.rm === undefined ? undefined : classifierOf(await openModelFolder(config.rm));
  requireMemory('grpo', config, {
    plan: () => grpoMemory(asked.config, config, judge),
    ways: () => grpoWays(asked.config, config, judge),
  });
  const prompts = promptsFrom(rows.train, asked, config);
  const validation = promptsFrom(rows.validation, asked, config);
  const heldOut = validation.slice(0, section.evalPrompts);
  const promptsPerRollout = section.completionsPerRollout / section.numGenerations;
  if (prompts.length < promptsPerRollout) throw tooFewPrompts(prompts.length, promptsPerRollout);

  const runtime = await openRuntime(config, context);
  try {
    const onEvent = context.onEvent.bind(context);
    const jokes = new CopyIndex(rows.train.flatMap(({ fields }) => fields['completion'] ?? []));
    await using rewards = await Rewards.open(runtime, config, jokes, onEvent);
    context.signal?.throwIfAborted();
    const run = await openRunFolder({
      ...config,
      stage: 'grpo',
      config,
      batchSize: divisible(config),
      fingerprints,
      onEvent,
    });
    try {
      const { quantization } = config;
      const base =
        config.adapter === undefined
          ? config.model
          : await mergedPolicy(runtime, {
              model: config.model,
              adapter: config.adapter,
              out: run.file(POLICY),
              // What becomes 4 bits next gains nothing from 32, and the embeddings would be twice as large.
              dtype: quantization === 'nf4' ? 'keep' : 'float32',
            });
      const policy = await openPolicy(base, undefined, { quantization });

      const adapterConfig = newAdapter(config, base);
      const random = stream(config.seed, 'adapter');
      const initial = initialAdapter(policy.folder.weights, adapterConfig, () => random.uniform());
      const lora = loraOf({ config: adapterConfig });
      const loss = lossSettings(section);
      const training = grpoGraph(policy.config, lora, {
        ...loss,
        temperature: section.temperature,
        quantization,
        recompute: section.recompute,
      });
      const learner = await Learner.create(runtime, {
        graph: training.context.graph,
        loss: training.loss,
        trainable: training.context.loraWeights,
        initial,
        frozen: policy.model.weights,
        adamw: section,
      });
      const adapted = { ...policy.model, lora };
      const form = section.samplerQuantization;
      const writing =
        form === undefined
          ? await writingModel(policy, runtime.device)
          : (await openCausal(base, undefined, { quantization: form })).model;
      const reference = Object.fromEntries(
        [...initial].map(([name, { shape }]): [string, Tensor] => [name, zeros('float32', shape)]),
      );
      const tools: RolloutTools = {
        policy,
        decoder: await Decoder.create(runtime, { ...writing, lora }),
        scorer: await Scorer.create(runtime, adapted),
        reward: (items) => rewards.score(items, { groupSize: section.numGenerations, learn: true }),
        adapter: learner.weights,
        reference,
      };

      const atOnce = run.microBatch(section.microBatchSize ?? section.batchSize);
      rewards.limitBatches(run.microBatch(section.batchSize));
      await rewards.calibrate(jokesOf(validation.slice(0, HUMAN_TEXTS)));
      const alarms = new Alarms(section, run, jokes);
      const stopping = new EarlyStopping(section, jokes);
      const batches = section.completionsPerRollout / section.batchSize;
      const passes = batches / section.gradientAccumulationSteps;
      const stepsPerRollout = passes * section.numIterations;
      const order = new EpochOrder(prompts.length, promptsPerRollout, config.seed, { whole: true });
      const stepsPerEpoch = order.stepsPerEpoch * stepsPerRollout;
      const totalSteps = Math.min(section.maxSteps ?? Infinity, Math.ceil(section.epochs * stepsPerEpoch));
      const buffer: { samples: readonly RolloutSample[]; tokensSeen: number; entropy: EntropyControl } = {
        samples: [],
        tokensSeen: 0,
        entropy: initialControl(section),
      };
      run.emit({ type: 'start', stage: 'grpo', totalSteps, out: run.path });
      for (const warning of lossWarnings(section)) run.emit({ type: 'warning', ...warning });

      await trainLoop({
        ...section,
        run,
        stage: 'grpo',
        signal: context.signal,
        totalSteps,
        stepsPerEpoch,
        schedule: scheduleOf(section, totalSteps),
        learner,
        replay: context.replay,
        step: async (step, rate) => {
          const within = step % stepsPerRollout;
          let generated: Metrics = {};
          if (within === 0) {
            const number = step / stepsPerRollout;
            const chosen = order.at(number).map((index) => ({ ...prompts[index]!, index }));
            const rollout = await rollOut(chosen, number, tools, config, { atOnce, signal: context.signal });
            buffer.samples = shuffled(
              rollout.samples,
              stream(config.seed, 'mix', number).shuffle(rollout.samples.length),
            );
            buffer.tokensSeen += rollout.tokens;
            record(rollout, step + 1);
            generated = { ...rollout.metrics, ...alarms.rollout(rollout, step + 1) };
          }
          const start = (within % passes) * section.gradientAccumulationSteps;
          const stepBatches = Array.from({ length: section.gradientAccumulationSteps }, (_, i) =>
            buffer.samples.slice((start + i) * section.batchSize, (start + i + 1) * section.batchSize),
          );
          const { metrics, activeEntropy } = await grpoStep(learner, stepBatches, rate, {
            loss,
            scale: {
              maxCompletionLength: section.maxCompletionLength,
              rolloutTokens: buffer.samples.reduce((total, sample) => total + learnedTokens(sample), 0),
              rolloutBatches: batches,
            },
            entropyCoef: appliedCoef(buffer.entropy, section),
            microBatchSize: atOnce,
          });
          buffer.entropy = adjusted(buffer.entropy, activeEntropy, section);
          const bonus: Metrics = loss.entropyBonus ? { entropy_coef: buffer.entropy.coef } : {};
          const logged = { ...generated, ...metrics, ...bonus };
          alarms.step(step + 1, logged);
          return logged;
        },
        rows: (step) => {
          const number = Math.floor(step / stepsPerRollout);
          const perStep = section.batchSize * section.gradientAccumulationSteps;
          const start = ((step % stepsPerRollout) % passes) * perStep;
          const mix = stream(config.seed, 'mix', number).shuffle(section.completionsPerRollout);
          const chosen = order.at(number);
          const groups = Array.from(mix.subarray(start, start + perStep), (at) =>
            Math.floor(at / section.numGenerations),
          );
          return [...new Set(groups.map((group) => prompts[chosen[group]!]!.place))];
        },
        totals: () => ({ num_tokens: buffer.tokensSeen }),
        carried: {
          save: () => ({ ...buffer, rewards: rewards.state, alarms: alarms.state, stopping: stopping.state }),
          load: (saved) => {
            const { rewards: rewarded, alarms: seen, stopping: looked, ...rest } = carriedSchema.parse(saved);
            Object.assign(buffer, rest);
            rewards.state = rewarded;
            alarms.state = seen;
            stopping.state = looked;
          },
        },
        evaluate: async (step) => {
          if (heldOut.length === 0) return {};
          const held: RolloutTools = {
            ...tools,
            reward: (items) => rewards.score(items, { groupSize: EVAL_SAMPLES, learn: false }),
          };
          const few = { ...config, grpo: { ...section, numGenerations: EVAL_SAMPLES } };
          const rollout = await rollOut(heldOut, -1, held, few, { atOnce, signal: context.signal });
          const shown = rollout.records.filter((_, i) => i % EVAL_SAMPLES === 0).slice(0, SHOWN_SAMPLES);
          for (const { template, prompt, completion, reward } of shown) {
            const shownReward = reward === null ? {} : { reward };
            run.emit({ type: 'sample', step, label: template, prompt, completion, ...shownReward });
          }
          const { reward, 'completions/mean_length': length, 'completions/clipped_ratio': clipped } = rollout.metrics;
          const written = rollout.records.map((record) => record.reward);
          return {
            eval_reward: reward!,
            'eval_completions/mean_length': length!,
            'eval_completions/clipped_ratio': clipped!,
            ...stopping.look(step, { rows: rollout.rows, rewards: written, groupSize: EVAL_SAMPLES }),
          };
        },
        ...(stopping.isOn && { best: { metric: CRITERION, direction: 'higher' as const } }),
        isEnough: () => stopping.isEnough,
      });

      const weights = await learner.optimizer.readWeights();
      await writeFolderAtomic(run.file('adapter'), (folder) =>
        writeAdapter(folder, { config: adapterConfig, tensors: weights }),
      );
      await writeRunReport(run.path);
      await run.finish();
      return run.path;

      function record(rollout: Rollout, step: number): void {
        const lines = run.lines('rollouts.jsonl');
        for (const sample of rollout.records) lines.append({ step, ...sample });
      }
    } finally {
      run.close();
    }
  } finally {
    await runtime.close();
  }
}

/** The shape of a reward model; what is none is refused when it is opened. */
const classifierOf = ({ config }: ModelFolder): ModelConfig | undefined => (isClassifier(config) ? config : undefined);

/** What a checkpoint keeps beside the optimizer: a rollout in mid-use; what rewards, alarms and entropy bonus have come to. */
const carriedSchema = z.object({
  samples: samplesSchema,
  tokensSeen: z.number(),
  entropy: entropyControlSchema.optional(),
  rewards: rewardsState,
  alarms: alarmsSchema,
  stopping: earlyStoppingState,
});

/** The jokes that people wrote to prompts. */
const jokesOf = (prompts: readonly RolloutPrompt[]): { prompt: string; completion: string }[] =>
  prompts.flatMap(({ plainPrompt: prompt, fields: { completion } }) =>
    completion === undefined ? [] : [{ prompt, completion }],
  );

const newAdapter = ({ lora }: GrpoConfig, base: string): AdapterConfig => ({
  r: lora.r,
  loraAlpha: lora.alpha,
  loraDropout: lora.dropout,
  targetModules: lora.targetModules,
  useRslora: false,
  taskType: 'CAUSAL_LM',
  baseModelNameOrPath: base,
});

/** A prompt and where its row stands, as `file:line`. */
type PlacedPrompt = RolloutPrompt & { readonly place: string };

/** Every row's prompts; one that is too long for the settings or the model is refused by name. */
function promptsFrom(rows: readonly Row[], policy: Policy, config: GrpoConfig): PlacedPrompt[] {
  const tokenizer = requireTokenizer(policy);
  const { maxPromptLength, maxCompletionLength: room } = config.grpo;
  const model = { chat: policy.chat, model: config.model };
  const prompts = rows.flatMap((row) =>
    samplesOf(row, config.data.templates, model).map(({ template, prompt, plainPrompt }) => {
      const words = wordsOf(config.data.templates[template], row);
      const place = placeOf(row);
      const made = { template, prompt, plainPrompt, words, fields: row.fields, place };
      const bytes = Buffer.byteLength(prompt);
      // A token holds at least one byte, so most prompts need no count.
      if (bytes <= maxPromptLength && bytes + room <= policy.config.maxPositionEmbeddings) return made;
      const ids = tokenizer.encode(prompt);
      if (ids.length > maxPromptLength) throw promptTooLong(row, ids.length, maxPromptLength);
      checkSequence(ids, policy.config, { room, where: place });
      return made;
    }),
  );
  return prompts.map((prompt, index) => ({ ...prompt, index }));
}

const promptTooLong = (row: Row, length: number, limit: number): UserError =>
  new UserError({
    code: 'grpo.prompt-too-long',
    message: `The prompt has ${length} tokens; the limit is ${limit}.`,
    where: placeOf(row),
    fix: 'Shorten the row, remove it, or raise grpo.maxPromptLength.',
  });

const tooFewPrompts = (count: number, needed: number): UserError =>
  new UserError({
    code: 'grpo.too-few-prompts',
    message: `There are ${count} training prompts, fewer than the ${needed} of one rollout.`,
    where: 'data',
    fix: 'Add rows, or lower grpo.completionsPerRollout.',
  });

const shuffled = <T>(items: readonly T[], order: Uint32Array): T[] => Array.from(order, (i) => items[i]!);
