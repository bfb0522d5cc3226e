import { join } from 'node:path';
import { fingerprint, tokenizerFingerprint } from '../checkpoints/fingerprint.js';
import { openModelFolder, type ModelFolder } from '../checkpoints/model-folder.js';
import { writeModelFolder } from '../checkpoints/write-model-folder.js';
import type { PretrainConfig } from '../config/stages.js';
import { completionOf, headlineOf, placeOf, type Row } from '../data/row.js';
import { UserError } from '../errors.js';
import { withLocalModels } from '../hub/local-models.js';
import { requireMemory } from '../memory/require.js';
import type { ModelConfig } from '../models/config/model-config.js';
import { writeRunReport } from '../evaluation/run-report.js';
import type { MaskedSequence } from '../models/packed-tokens.js';
import { stream } from '../random.js';
import { writeFileAtomic, writeFolderAtomic } from '../runs/atomic.js';
import type { StageContext } from '../runs/events.js';
import { openRunFolder, type RunFolder } from '../runs/run-folder.js';
import { buildWordPiece } from '../text/build-word-piece.js';
import { collateTexts, type TokenBatch } from '../text/collate.js';
import { loadTokenizer } from '../text/load-tokenizer.js';
import { assertTokenizerFits, type Tokenizer } from '../text/tokenizer.js';
import { serializeTokenizer } from '../text/tokenizer-files.js';
import { trainByteLevelBpe } from '../text/train-bpe.js';
import { chunks } from '../training/chunks.js';
import { dropoutFeeds, dropsOut, packedDropoutFeeds } from '../training/dropout.js';
import { freshWeights, storedWeights } from '../training/initial-weights.js';
import {
  causalGraph,
  causalLossFeeds,
  countTokens,
  maskedGraph,
  maskedLossFeeds,
  type BatchPiece,
  sum,
  type LanguageGraph,
} from '../training/language.js';
import { Learner, type Feeds } from '../training/learner.js';
import { withLessMemory } from '../training/less-memory.js';
import { trainLoop } from '../training/loop.js';
import { openRuntime } from '../training/open-runtime.js';
import { EpochOrder } from '../training/order.js';
import { loadRows } from '../training/rows.js';
import { scheduleOf } from '../training/schedule.js';
import { freshConfig, type Vocabulary } from './pretrain/fresh-config.js';
import { pretrainMemory, pretrainWays } from './pretrain/memory.js';

/** Batches of the validation loss; enough to choose by, few enough to look often. */
const EVAL_BATCHES = 25;

/**
 * A base model from scratch, or a given one trained on: next-token prediction (Qwen3) or masked-token prediction
 * (DeBERTa-v2, Devlin et al., 2019) with all parameters learning. Texts are the headline and the text of every training
 * row of the data folder, one document each; validation rows of the one split are held out here as everywhere.
 *
 * Leaves `model/` in Hugging Face layout with its tokenizer: the weights with the lowest validation loss.
 */
export async function pretrain(config: PretrainConfig, context: StageContext): Promise<string> {
  return withLessMemory(learn, config, context, config.pretrain.batchSize);
}

async function learn(asked: PretrainConfig, context: StageContext): Promise<string> {
  const config = await withLocalModels(asked, context);
  const section = config.pretrain;
  const rows = await loadRows(
    config.data,
    config.data.file === undefined ? ['sft_train', 'rm_train'] : ['sft_train'],
    'optional',
  );
  const fingerprints = {
    ...rows.fingerprints,
    ...(config.model === undefined ? {} : { model: await fingerprint(config.model) }),
    ...(section.tokenizer === undefined ? {} : { tokenizer: await tokenizerFingerprint(section.tokenizer) }),
  };
  const given = await openGiven(config);
  // A vocabulary that is made has at most as many entries as it may have.
  const largest = { vocabSize: given?.tokenizer.vocabSize ?? section.vocabSize, padTokenId: 0, eosTokenId: 0 };
  const shape = given?.model?.config ?? freshConfig(section, largest);
  requireMemory('pretrain', config, {
    plan: () => pretrainMemory(shape, config),
    ways: () => pretrainWays(shape, config),
  });
  context.signal?.throwIfAborted();
  const run = await openRunFolder({
    ...config,
    stage: 'pretrain',
    config,
    batchSize: section.batchSize,
    fingerprints,
    onEvent: (event) => {
      context.onEvent(event);
    },
  });
  const runtime = await openRuntime(config, context);
  try {
    const texts = documents(rows.train);
    const tokenizerDir = given?.dir ?? (await makeTokenizer(run, section, texts));
    const tokenizer = given?.tokenizer ?? (await loadTokenizer(tokenizerDir));
    const modelConfig = given?.model?.config ?? freshConfig(section, vocabularyOf(section, tokenizer, tokenizerDir));
    const objective = objectiveOf(modelConfig, tokenizer, tokenizerDir, config);
    const training = objective.graph(true);
    const initial =
      given?.model === undefined
        ? freshWeights(training.context.weights, modelConfig.initializerRange, config.seed)
        : storedWeights(given.model.weights, training.context.weights.keys());
    const learner = await Learner.create(runtime, {
      graph: training.graph,
      loss: training.loss,
      trainable: training.context.weights,
      initial,
      adamw: section,
    });
    const evaluation = await runtime.compile(objective.graph(false).graph);

    const samples = texts.map(({ text }) => objective.encode(text));
    const heldOut = documents(rows.validation).map(({ text }) => objective.encode(text));
    const order = new EpochOrder(samples.length, section.batchSize, config.seed, {
      lengths: samples.map(({ inputIds }) => inputIds.length),
    });
    const totalSteps = order.totalSteps(section.epochs, section.maxSteps);
    const atOnce = run.microBatch(section.batchSize);
    run.emit({ type: 'start', stage: 'pretrain', totalSteps, out: run.path });

    await trainLoop({
      ...section,
      run,
      stage: 'pretrain',
      signal: context.signal,
      totalSteps,
      stepsPerEpoch: order.stepsPerEpoch,
      schedule: scheduleOf(section, totalSteps),
      learner,
      replay: context.replay,
      best: { metric: 'eval_loss', direction: 'lower' },
      step: async (step, rate) => {
        const batch = order.at(step).map((i) => samples[i]!);
        const parts = objective.feeds(batch, ['step', step], atOnce);
        const feeds = parts.map((part) =>
          learner.accepted({ ...part.feeds, ...objective.masks(batch, step, part.rows) }),
        );
        const { reports, gradNorm } = await learner.step(feeds, rate);
        const loss = reports.reduce((total, report) => total + Number(report['loss']!.data[0]), 0);
        return { loss, grad_norm: gradNorm };
      },
      rows: (step) => order.at(step).map((i) => texts[i]!.place),
      evaluate: async () => {
        let [loss, correct, tokens] = [0, 0, 0];
        for (let i = 0; i < heldOut.length && i < EVAL_BATCHES * section.batchSize; i += section.batchSize) {
          context.signal?.throwIfAborted();
          const batch = heldOut.slice(i, i + section.batchSize);
          for (const { feeds } of objective.feeds(batch, ['evaluation', i], atOnce)) {
            const result = await evaluation.run({ ...feeds, ...learner.weights });
            loss += sum(result['token_loss']!);
            correct += sum(result['token_correct']!);
            tokens += result['token_loss']!.data.length;
          }
        }
        return tokens === 0 ? {} : { eval_loss: loss / tokens, eval_mean_token_accuracy: correct / tokens };
      },
    });

    await writeFolderAtomic(run.file('model'), async (folder) =>
      writeModelFolder(folder, {
        config: modelConfig,
        tensors: learner.optimizer.weights,
        tokenizerFrom: tokenizerDir,
        ...generationConfig(modelConfig),
      }),
    );
    await writeRunReport(run.path);
    await run.finish();
    return run.path;
  } finally {
    run.close();
    await runtime.close();
  }
}

interface Given {
  /** Folder of the tokenizer. */
  readonly dir: string;
  readonly tokenizer: Tokenizer;
  /** The model to go on from. */
  readonly model?: ModelFolder;
}

/** The model or the tokenizer that the config names; what does not fit is refused before anything is written. */
async function openGiven({ model: modelDir, pretrain: section }: PretrainConfig): Promise<Given | undefined> {
  const dir = modelDir ?? section.tokenizer;
  if (dir === undefined) return undefined;
  const tokenizer = await loadTokenizer(dir);
  const needed = section.objective === 'causal' ? (['pad', 'eos'] as const) : (['pad', 'mask'] as const);
  for (const role of needed) tokenizer.requireSpecial(role, dir);
  if (modelDir === undefined) return { dir, tokenizer };
  const model = await openModelFolder(modelDir);
  assertTokenizerFits(tokenizer, model.config.vocabSize, dir);
  requireObjective(section.objective, model.config);
  return { dir, tokenizer, model };
}

function requireObjective(objective: 'causal' | 'masked', { kind, architecture }: ModelConfig): void {
  if (kind === (objective === 'causal' ? 'causal' : 'encoder')) return;
  throw new UserError({
    code: 'pretrain.objective',
    message: `The objective ${objective} does not fit a ${architecture}.`,
    where: 'pretrain.objective',
    fix: `Set it to ${kind === 'causal' ? 'causal' : 'masked'}, or give another model.`,
  });
}

/** A text to learn, and where the first row that holds it stands. */
interface Document {
  readonly text: string;
  readonly place: string;
}

/** Headline and text of each row as one document, each document once. */
function documents(rows: readonly Row[]): Document[] {
  const places = new Map<string, string>();
  for (const row of rows) {
    const text = [headlineOf(row), completionOf(row)].filter((part) => part !== undefined).join('\n');
    if (!places.has(text)) places.set(text, placeOf(row));
  }
  return Array.from(places, ([text, place]) => ({ text, place }));
}

async function makeTokenizer(
  run: RunFolder,
  section: PretrainConfig['pretrain'],
  documents: readonly Document[],
): Promise<string> {
  const texts = documents.map(({ text }) => text);
  const files =
    section.objective === 'causal'
      ? trainByteLevelBpe(texts, {
          vocabSize: section.vocabSize,
          specialTokens: ['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
          eosToken: '<|im_end|>',
          padToken: '<|endoftext|>',
        })
      : buildWordPiece(texts, { vocabSize: section.vocabSize });
  const dir = run.file('tokenizer');
  await writeFolderAtomic(dir, async (folder) => {
    for (const [name, content] of Object.entries(serializeTokenizer(files)))
      await writeFileAtomic(join(folder, name), content);
  });
  return dir;
}

function vocabularyOf({ objective }: PretrainConfig['pretrain'], tokenizer: Tokenizer, where: string): Vocabulary {
  return {
    vocabSize: tokenizer.vocabSize,
    padTokenId: tokenizer.requireSpecial('pad', where),
    eosTokenId: objective === 'causal' ? tokenizer.requireSpecial('eos', where) : 0,
  };
}

const generationConfig = (config: ModelConfig): { generationConfig?: Record<string, unknown> } =>
  config.kind === 'causal'
    ? { generationConfig: { eos_token_id: [...config.eosTokenIds], pad_token_id: config.padTokenId } }
    : {};

/** What the two objectives do differently. */
interface Objective {
  graph(training: boolean): LanguageGraph;
  encode(text: string): MaskedSequence;
  /** Feeds of a batch in pieces of `atOnce`; `path` names the random choices in it. */
  feeds(samples: readonly MaskedSequence[], path: readonly (string | number)[], atOnce: number): BatchPiece[];
  /** What dropout takes of rows of a step's batch, where the model has dropout. */
  masks(samples: readonly MaskedSequence[], step: number, rows: readonly number[]): Feeds;
}

function objectiveOf(model: ModelConfig, tokenizer: Tokenizer, where: string, config: PretrainConfig): Objective {
  const section = config.pretrain;
  const asSample = (inputIds: number[]): MaskedSequence => ({ inputIds, completionMask: inputIds.map(() => 1) });
  const learning = (training: boolean): { training: boolean; recompute: boolean } => ({
    training: training && dropsOut(model),
    recompute: training && section.recompute,
  });
  if (model.kind === 'causal') {
    const eosId = tokenizer.requireSpecial('eos', where);
    return {
      graph: (training) => causalGraph(model, { ...learning(training), statistics: !training }),
      encode: (text) => asSample([...tokenizer.encode(text).slice(0, section.maxLength - 1), eosId]),
      feeds: (samples, _, atOnce) => {
        const { supervised } = countTokens(samples);
        const feedsOf = (rows: readonly number[]): BatchPiece['feeds'] =>
          causalLossFeeds(
            rows.map((row) => samples[row]!),
            supervised,
          );
        return chunks([...samples.keys()], atOnce).map((rows) => ({ feeds: feedsOf(rows), rows }));
      },
      masks: (samples, step, rows) =>
        packedDropoutFeeds(
          config.seed,
          step,
          rows.map((row) => ({ row, sequences: [samples[row]!] })),
        ),
    };
  }
  const collateIds = (samples: readonly MaskedSequence[]): TokenBatch =>
    collateTexts(
      samples.map(({ inputIds }) => inputIds),
      { padId: tokenizer.requireSpecial('pad', where) },
    );
  const special = new Set(Object.values(tokenizer.special));
  const rule = {
    probability: section.maskProbability,
    maskId: tokenizer.requireSpecial('mask', where),
    vocabSize: model.vocabSize,
    special,
  };
  return {
    graph: (training) => maskedGraph(model, { ...learning(training), statistics: !training }),
    encode: (text) => asSample(tokenizer.encode(text, { maxLength: section.maxLength })),
    feeds: (samples, path, atOnce) =>
      maskedLossFeeds(model, collateIds(samples), rule, stream(config.seed, 'mask', ...path), atOnce),
    masks: (_, step, rows) => (dropsOut(model) ? dropoutFeeds(config.seed, step, rows) : {}),
  };
}
