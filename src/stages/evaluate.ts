import type { EvaluateConfig } from '../config/stages.js';
import { completionOf, placeOf, type Row } from '../data/row.js';
import { promptsOf, wordsOf } from '../data/templates.js';
import { UserError } from '../errors.js';
import { compareModels, type Comparison, type TextRecord } from '../evaluation/compare.js';
import { writeRunReport } from '../evaluation/run-report.js';
import { Decoder } from '../generation/decoder.js';
import { openPolicy, requireTokenizer, uploadAdapter, writingModel, type Policy } from '../generation/policy.js';
import { unfiltered } from '../generation/sampling-settings.js';
import { withLocalModels } from '../hub/local-models.js';
import { stream } from '../random.js';
import { RewardModel } from '../rewards/reward-model.js';
import { writeFileAtomic } from '../runs/atomic.js';
import type { StageContext } from '../runs/events.js';
import { openRunFolder, type RunFolder } from '../runs/run-folder.js';
import type { Runtime } from '../runtime/runtime.js';
import { requireChat } from '../text/samples.js';
import { openRuntime } from '../training/open-runtime.js';
import { loadRows } from '../training/rows.js';

/** A model to be compared, under the name that the report gives it. */
export interface Candidate {
  readonly name: string;
  readonly model: string;
  readonly adapter?: string;
}

/** One model on unseen prompts; `duanzi evaluate`. */
export async function evaluate(config: EvaluateConfig, context: StageContext): Promise<string> {
  const { model, adapter, ...rest } = await withLocalModels(config, context);
  const candidate = { name: 'model', model, ...(adapter === undefined ? {} : { adapter }) };
  return evaluateModels({ ...rest, candidates: [candidate] }, context);
}

type EvaluationConfig = Omit<EvaluateConfig, 'model' | 'adapter'> & { readonly candidates: readonly Candidate[] };

/**
 * Lets every model write to the same validation prompts, several times each from seeds of their own, and rewards what
 * they wrote. Leaves `texts.jsonl` with every text and `evaluation.json` with the comparison.
 */
export async function evaluateModels(config: EvaluationConfig, context: StageContext): Promise<string> {
  const rows = await loadRows(config.data, ['sft_train'], 'optional');
  const prompts = chosenPrompts(rows.validation, config);
  const onEvent = context.onEvent.bind(context);
  context.signal?.throwIfAborted();
  const run = await openRunFolder({ ...config, stage: 'evaluate', config, fingerprints: rows.fingerprints, onEvent });
  const runtime = await openRuntime(config, context);
  try {
    run.emit({ type: 'start', stage: 'evaluate', out: run.path });
    const rewardModel = await RewardModel.open(runtime, config.rm);
    const records: TextRecord[] = [];
    for (const candidate of config.candidates) {
      records.push(...(await write(runtime, run, candidate, prompts, rewardModel, config, context.signal)));
    }
    for (const record of records) run.lines('texts.jsonl').append({ step: 0, ...record });
    const comparison: Comparison = compareModels(records, {
      seed: config.seed,
      resamples: config.evaluate.bootstrapSamples,
      training: rows.train.map(completionOf),
    });
    await writeFileAtomic(run.file('evaluation.json'), `${JSON.stringify(comparison, null, 1)}\n`);
    await writeRunReport(run.path);
    await run.finish();
    return run.path;
  } finally {
    run.close();
    await runtime.close();
  }
}

interface EvaluationPrompt {
  readonly template: string;
  readonly prompt: string;
  readonly words?: string[];
  /** The row, where it is a conversation. */
  readonly conversation?: Row;
}

/** Validation prompts in an order drawn from the seed, each once. */
function chosenPrompts(rows: readonly Row[], config: EvaluationConfig): EvaluationPrompt[] {
  const all = new Map<string, EvaluationPrompt>();
  for (const row of rows) {
    for (const { template, prompt } of promptsOf(row, config.data.templates)) {
      const words = wordsOf(config.data.templates[template], row);
      const conversation = row.messages === undefined ? {} : { conversation: row };
      all.set(prompt, { template, prompt, ...(words.length > 0 ? { words } : {}), ...conversation });
    }
  }
  if (all.size === 0) {
    throw new UserError({
      code: 'evaluate.no-prompts',
      message: 'The split holds out no prompt to write to.',
      where: 'data.validationFraction',
      fix: 'Raise it, or add rows.',
    });
  }
  const list = [...all.values()];
  const order = stream(config.seed, 'evaluation prompts').shuffle(list.length);
  return [...order].slice(0, config.evaluate.prompts).map((i) => list[i]!);
}

/** A prompt as the model is given it. */
function asked({ prompt, conversation }: EvaluationPrompt, { chat, folder }: Policy): string {
  if (conversation?.messages === undefined) return prompt;
  const place = placeOf(conversation);
  return requireChat(chat, folder.dir, place).prompt(conversation.messages.slice(0, -1), place);
}

async function write(
  runtime: Runtime,
  run: RunFolder,
  candidate: Candidate,
  prompts: readonly EvaluationPrompt[],
  rewardModel: RewardModel,
  config: EvaluationConfig,
  signal: AbortSignal | undefined,
): Promise<TextRecord[]> {
  const policy = await openPolicy(candidate.model, candidate.adapter, config);
  const tokenizer = requireTokenizer(policy);
  const decoder = await Decoder.create(runtime, await writingModel(policy, runtime.device));
  // Sent along it would be copied for every token.
  const { adapter = {} } = await uploadAdapter(runtime, policy);
  const { evaluate: settings, generate } = config;
  const jobs = prompts.flatMap((prompt) =>
    Array.from({ length: settings.seeds }, (_, sample) => ({
      ...prompt,
      sample,
      ids: tokenizer.encode(asked(prompt, policy)),
    })),
  );
  const completions = await decoder.generate(
    jobs.map(({ ids }) => ids),
    {
      eosTokenIds: policy.eosTokenIds,
      padTokenId: policy.padTokenId,
      adapter,
      maxNewTokens: generate.maxNewTokens,
      sampling: { ...unfiltered, temperature: generate.temperature, topP: generate.topP, topK: generate.topK },
      batchSize: generate.batchSize,
      // The same streams for every model: what differs is the model.
      random: (i) => stream(config.seed, 'evaluation', jobs[i]!.prompt, jobs[i]!.sample),
      signal,
      onProgress: ({ finished, total, tokens }) => {
        run.emit({
          type: 'progress',
          task: `write (${candidate.name})`,
          done: finished,
          total,
          note: `${tokens} tokens`,
        });
      },
    },
  );
  await decoder.dispose();
  for (const each of Object.values(adapter)) await each.dispose();
  const texts = completions.map(({ ids }) => tokenizer.decode(ids, { skipSpecialTokens: true }));
  const rewards = await rewardModel.score(
    jobs.map(({ prompt }, i) => ({ prompt, completion: texts[i]! })),
    { batchSize: generate.batchSize },
  );
  return jobs.map(({ template, prompt, words, sample }, i) => ({
    model: candidate.name,
    template,
    prompt,
    ...(words === undefined ? {} : { words }),
    sample,
    completion: texts[i]!,
    tokens: completions[i]!.ids.length,
    finishReason: completions[i]!.finishReason,
    reward: rewards[i]!,
  }));
}
