import { fingerprint } from '../checkpoints/fingerprint.js';
import { openModelFolder } from '../checkpoints/model-folder.js';
import type { RmConfig } from '../config/stages.js';
import { placeOf, type Row } from '../data/row.js';
import { UserError } from '../errors.js';
import { compareWithBaselines } from '../evaluation/reward-model/rivals.js';
import { evalMetrics, judge, metricsOf, probabilitiesOf } from '../evaluation/reward-model/judge.js';
import { EVALUATION_FILE, rewardModelEvaluation } from '../evaluation/reward-model/schema.js';
import { writeRunReport } from '../evaluation/run-report.js';
import { withLocalModels } from '../hub/local-models.js';
import { requireMemory } from '../memory/require.js';
import { Classifier } from '../rewards/classifier.js';
import { textLimit } from '../rewards/reward-model.js';
import { writeFileAtomic } from '../runs/atomic.js';
import { Interrupted, type StageContext } from '../runs/events.js';
import { openRunFolder, type RunFolder } from '../runs/run-folder.js';
import { loadTokenizer } from '../text/load-tokenizer.js';
import { assertTokenizerFits } from '../text/tokenizer.js';
import {
  accuracyOf,
  classificationGraph,
  classificationParts,
  passesOf,
  tokensAtOnceOf,
} from '../training/classification.js';
import { classifierLora, classifierStart } from '../training/classifier-lora.js';
import { classifierConfig } from '../training/classifier-start.js';
import { classifierDropoutFeeds } from '../training/dropout.js';
import { labelledTexts, type LabelledText } from '../training/labelled-texts.js';
import { Learner } from '../training/learner.js';
import { withLessMemory } from '../training/less-memory.js';
import { trainLoop } from '../training/loop.js';
import { openRuntime } from '../training/open-runtime.js';
import { EpochOrder } from '../training/order.js';
import { loadRows } from '../training/rows.js';
import { scheduleOf } from '../training/schedule.js';
import { rmMemory, rmWays } from './rm/memory.js';
import { rewardHead } from './rm/pairs.js';
import { writeClassifier } from './rm/write-classifier.js';

/**
 * The reward model: a classifier (an encoder, or a causal model with a head) of prompt + completion as one text, all parameters or an adapter
 * and the head learning, with R-Drop (Liang et al., 2021, https://arxiv.org/abs/2106.14448) and the published settings as defaults.
 *
 * Where it departs from the published script: every template is learned, not the headline's alone, because GRPO asks for
 * all; a batch goes through in parts of similar length, each padded to its longest text and not to the limit, and their
 * gradients are summed; the best weights are chosen on validation rows of the one split, and the test file is looked at
 * once, after that; they are chosen by ROC AUC, because GRPO compares logits and F1 is high for a model that calls
 * everything humorous; the figures stand beside what the prompt, the length and n-grams alone achieve.
 *
 * With pairs of texts in place of labels it learns a head of one label (see `rewardHead`).
 *
 * Leaves `model/` in Hugging Face layout, `adapter/` in PEFT's where one learned, and the figures in `evaluation.json`.
 */
export async function rm(config: RmConfig, context: StageContext): Promise<string> {
  return withLessMemory(learn, config, context, config.rm.batchSize);
}

async function learn(given: RmConfig, context: StageContext): Promise<string> {
  const config = await withLocalModels(given, context);
  if (config.rm.objective === 'pairs') return rewardHead(config, context);
  const section = config.rm;
  const rows = await loadRows(config.data, ['rm_train'], 'required', { testFile: section.testFile });
  requireBothLabels(rows.train, config.data.dir ?? config.data.file);
  const folder = await openModelFolder(config.model);
  const tokenizer = await loadTokenizer(config.model);
  const modelConfig = classifierConfig(folder, section.dropout, tokenizer.special.pad);
  const maxLength = textLimit(modelConfig, section.maxLength);
  assertTokenizerFits(tokenizer, modelConfig.vocabSize, config.model);
  requireMemory('rm', config, {
    plan: () => rmMemory(modelConfig, config),
    ways: () => rmWays(modelConfig, config),
  });
  const lora = classifierLora(modelConfig, section.lora);
  const training = classificationGraph(modelConfig, section, lora);
  const start = classifierStart(folder, training.context, config.seed);

  const fingerprints = { ...rows.fingerprints, model: await fingerprint(config.model) };
  const onEvent = context.onEvent.bind(context);
  context.signal?.throwIfAborted();
  const run = await openRunFolder({
    ...config,
    stage: 'rm',
    config,
    batchSize: section.batchSize,
    fingerprints,
    onEvent,
  });
  const runtime = await openRuntime(config, context);
  try {
    const encoding = { templates: config.data.templates, tokenizer, maxLength };
    const texts = await labelledTexts(rows.train, encoding);
    const heldOut = await labelledTexts(rows.validation, encoding);
    const tests = await labelledTexts(rows.test, encoding);
    if (run.resumeFrom === undefined) warn(run, { fresh: start.fresh, texts, heldOut });

    const padTokenId = tokenizer.special.pad ?? modelConfig.padTokenId ?? 0;
    const learner = await Learner.create(runtime, {
      graph: training.graph,
      loss: training.loss,
      ...start,
      adamw: section,
    });
    const classifier = await Classifier.create(runtime, modelConfig, start.frozen, lora && { lora });
    const atOnce = run.microBatch(section.batchSize);
    const passes = passesOf(modelConfig, section.rdropAlpha, lora);
    const room = tokensAtOnceOf({ ...section, maxLength }, passes) * (atOnce / section.batchSize);
    const judgeTexts = async (judged: readonly LabelledText[]): Promise<Float64Array> => {
      const sequences = judged.map(({ inputIds }) => inputIds);
      const batchSize = Math.max(1, Math.min(atOnce, Math.floor(room / maxLength)));
      const options = { batchSize, padTokenId, weights: learner.weights, signal: context.signal };
      return probabilitiesOf(await classifier.logits(sequences, options));
    };

    // Not by length, which goes with the label: batches of one label would teach little else.
    const order = new EpochOrder(texts.length, section.batchSize, config.seed);
    const totalSteps = order.totalSteps(section.epochs, section.maxSteps);
    run.emit({ type: 'start', stage: 'rm', totalSteps, out: run.path });

    const bestStep = await trainLoop({
      ...section,
      run,
      stage: 'rm',
      signal: context.signal,
      totalSteps,
      stepsPerEpoch: order.stepsPerEpoch,
      evaluateEveryEpoch: true,
      schedule: scheduleOf(section, totalSteps),
      learner,
      replay: context.replay,
      // Where texts are easily told apart the ROC AUC is 1 from early on: of these steps the best calibrated is kept.
      best: { metric: 'eval_roc_auc', direction: 'higher', tie: 'eval_loss' },
      step: async (step, rate) => {
        const batch = order.at(step).map((i) => texts[i]!);
        const labels = batch.map(({ label }) => label);
        const sequences = batch.map(({ inputIds }) => inputIds);
        const longest = Math.max(...sequences.map(({ length }) => length));
        const parts = classificationParts(
          modelConfig,
          { sequences, labels },
          { padId: padTokenId, passes, tokensAtOnce: Math.min(room, atOnce * passes * longest) },
        );
        const feeds = parts.map(({ feeds: given, tokens, rows }) =>
          learner.accepted({ ...given, ...classifierDropoutFeeds(modelConfig, { ...config, step }, tokens, rows) }),
        );
        const { reports, gradNorm } = await learner.step(feeds, rate);
        const values: Record<string, number> = { accuracy: 0 };
        for (const [i, { logits, ...scalars }] of reports.entries()) {
          const part = parts[i]!.labels;
          values['accuracy']! += (accuracyOf(logits!, part) * part.length) / labels.length;
          for (const [name, { data }] of Object.entries(scalars)) values[name] = (values[name] ?? 0) + Number(data[0]);
        }
        return { ...values, grad_norm: gradNorm };
      },
      rows: (step) => order.at(step).map((i) => placeOf(rows.train[texts[i]!.row]!)),
      evaluate: async () => (heldOut.length === 0 ? {} : evalMetrics(metricsOf(heldOut, await judgeTexts(heldOut)))),
    });

    await writeClassifier(runtime, run, {
      config: modelConfig,
      base: config.model,
      maxLength,
      lora,
      start,
      learner,
      classifier,
      texts: texts.map(({ inputIds }) => inputIds),
      padTokenId,
    });

    const probabilities = await judgeTexts(heldOut);
    const rivals =
      section.baselines && heldOut.length > 0
        ? await compareWithBaselines({
            train: rows.train,
            validation: rows.validation,
            templates: config.data.templates,
            texts: heldOut,
            probabilities,
            seed: config.seed,
            signal: context.signal,
            onProgress: (progress) => {
              run.emit({ type: 'progress', task: 'baselines', ...progress });
            },
          }).catch((error: unknown) => {
            throw context.signal?.aborted === true ? new Interrupted(run.path, totalSteps) : error;
          })
        : { baselines: [], added: null };
    const evaluation = rewardModelEvaluation.parse({
      formatVersion: 1,
      step: bestStep,
      validation: heldOut.length === 0 ? null : judge(heldOut, probabilities),
      ...rivals,
      test: tests.length === 0 ? null : judge(tests, await judgeTexts(tests)),
    });
    await writeFileAtomic(run.file(EVALUATION_FILE), `${JSON.stringify(evaluation, null, 2)}\n`);
    await writeRunReport(run.path);
    await run.finish();
    return run.path;
  } finally {
    run.close();
    await runtime.close();
  }
}

/** Without rows of both labels there is nothing to tell apart. */
function requireBothLabels(rows: readonly Row[], where: string | undefined): void {
  const first = rows[0]!.label;
  if (rows.some(({ label }) => label !== first)) return;
  throw new UserError({
    code: 'rm.one-label',
    message: `All ${rows.length} training rows have the label ${first}.`,
    ...(where !== undefined && { where }),
    fix: 'Give rows of both labels, 0 and 1, or check data.columns.label.',
  });
}

function warn(
  run: RunFolder,
  facts: {
    readonly fresh: readonly string[];
    readonly texts: readonly LabelledText[];
    readonly heldOut: readonly LabelledText[];
  },
): void {
  const { fresh, texts, heldOut } = facts;
  const cut = texts.filter(({ truncated }) => truncated).length;
  const warnings = [
    fresh.length > 0 && {
      code: 'rm.new-head',
      message: `The model has no classification head; a fresh one begins to learn: ${fresh.join(', ')}.`,
    },
    cut > 0 && {
      code: 'rm.truncated',
      message: `${cut} of ${texts.length} training texts are longer than rm.maxLength and lose their end.`,
    },
    heldOut.length === 0 && {
      code: 'rm.no-validation',
      message: 'No row is held out: the last weights are kept, and nothing says how good they are.',
    },
  ];
  for (const warning of warnings) if (warning !== false) run.emit({ type: 'warning', ...warning });
}
