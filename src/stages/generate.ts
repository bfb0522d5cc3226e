import { resolve } from 'node:path';
import { plainPrompt } from '../config/messages.js';
import { placeOfInput, type GenerateInput, type GenerateOutput } from '../config/records.js';
import type { GenerateConfig } from '../config/stages.js';
import { promptOf } from '../data/templates.js';
import { UserError } from '../errors.js';
import { checkSequence } from '../generation/check-sequence.js';
import { Decoder, type Completion } from '../generation/decoder.js';
import {
  openCausal,
  requireTokenizer,
  uploadAdapter,
  withTokenizer,
  writingModel,
  type OpenedModel,
  type Policy,
} from '../generation/policy.js';
import { unfiltered } from '../generation/sampling-settings.js';
import { withLocalModels } from '../hub/local-models.js';
import { stream } from '../random.js';
import { RewardModel } from '../rewards/reward-model.js';
import type { StageContext } from '../runs/events.js';
import { requireChat } from '../text/samples.js';
import type { Runtime } from '../runtime/runtime.js';
import { openRuntime } from '../training/open-runtime.js';

/**
 * Texts of a model, one for each input and in their order. Every text has a random stream of its own, (seed, input,
 * candidate), so that what is written does not depend on the batch size or on the other inputs. With a reward model each
 * text gets its reward, and of several candidates the one with the highest is given.
 *
 * All inputs are checked before anything is written.
 *
 * @throws UserError for a model, adapter or input that is wrong, among them a prompt that leaves too little room
 */
export async function* generate(
  given: GenerateConfig,
  inputs: readonly GenerateInput[],
  context: StageContext,
): AsyncGenerator<GenerateOutput> {
  const config = await withLocalModels(given, context);
  const section = config.generate;
  const { quantization } = config;
  const runtime = await openRuntime(config, context);
  try {
    const opened = await openCausal(resolve(config.model), config.adapter, { quantization });
    const [policy, decoder] = await withDecoder(runtime, opened);
    const prompts = inputs.map((input, i) => readPrompt(input, policy, config, placeOfInput(input, i)));
    const judge = config.rm === undefined ? undefined : await openJudge(runtime, config.rm, policy);
    const adapter = await uploadAdapter(runtime, policy);
    const { bestOf } = section;
    const asked = prompts.flatMap((prompt) => Array<Prompt>(bestOf).fill(prompt));
    const total = asked.length;
    const completions = decoder.stream(
      asked.map(({ ids }) => ids),
      {
        ...adapter,
        maxNewTokens: section.maxNewTokens,
        sampling: { ...unfiltered, ...section },
        eosTokenIds: section.ignoreEos ? new Set() : policy.eosTokenIds,
        padTokenId: policy.padTokenId,
        batchSize: section.batchSize,
        random: (at) => stream(config.seed, 'generate', Math.floor(at / bestOf), at % bestOf),
        signal: context.signal,
        onProgress: ({ finished, tokens }) => {
          context.onEvent({ type: 'progress', task: 'generate', done: finished, total, note: `${tokens} tokens` });
        },
      },
    );
    // They end in any order; those of an input are given once all before it were.
    const written: (GenerateOutput | undefined)[] = asked.map(() => undefined);
    let given = 0;
    for await (const { prompt: at, ...completion } of completions) {
      written[at] = outputOf(asked[at]!, completion, policy);
      const gap = written.indexOf(undefined, given);
      const ready = gap === -1 ? total : gap - (gap % bestOf);
      if (ready < total && (ready === given || (judge !== undefined && ready - given < REWARDED_AT_ONCE))) continue;
      const candidates = written.slice(given, ready).map((output) => output!);
      const plain = asked.slice(given, ready).map((prompt) => prompt.plain);
      const judged = judge === undefined ? candidates : await judge(candidates, plain);
      given = ready;
      for (let first = 0; first < judged.length; first += bestOf) {
        yield bestRewarded(judged.slice(first, first + bestOf));
      }
    }
  } finally {
    await runtime.close();
  }
}

/** A model's tokenizer and its decoder: the one is read here while the runtime's thread makes the other. */
async function withDecoder(runtime: Runtime, opened: OpenedModel): Promise<[Policy, Decoder]> {
  const model = await writingModel(opened, runtime.device);
  const { promise: making } = await new Promise<{ promise: Promise<Decoder> }>((sent, reject) => {
    const promise = Decoder.create(runtime, model, () => {
      sent({ promise });
    });
    promise.catch(reject);
  });
  return Promise.all([withTokenizer(opened), making]);
}

interface Prompt {
  /** Undefined where the model folder has no tokenizer. */
  readonly text: string | undefined;
  readonly ids: readonly number[];
  /** The text as a reward model reads it, where that is another. */
  readonly plain?: string;
}

function readPrompt(input: GenerateInput, policy: Policy, { data, generate }: GenerateConfig, where: string): Prompt {
  const prompt = encode(input, policy, data, where);
  checkSequence(prompt.ids, policy.config, { room: generate.maxNewTokens, where });
  return prompt;
}

function encode(input: GenerateInput, policy: Policy, data: GenerateConfig['data'], where: string): Prompt {
  if ('inputIds' in input) return { text: policy.tokenizer?.decode(input.inputIds), ids: input.inputIds };
  const tokenizer = requireTokenizer(policy);
  if ('messages' in input) {
    const text = requireChat(policy.chat, policy.folder.dir, where).prompt(input.messages, where);
    return { text, ids: tokenizer.encode(text), plain: plainPrompt(input.messages) };
  }
  const text = 'prompt' in input ? input.prompt : promptOf(columnsOf(input, data.columns), data.templates);
  return { text, ids: tokenizer.encode(text) };
}

/** What is given, under the names of the parts it plays and of the columns that play them in the data. */
function columnsOf(
  input: { headline: string } | { words: readonly [string, string] },
  columns: GenerateConfig['data']['columns'],
): Record<string, string> {
  if ('headline' in input) return { headline: input.headline, [columns.headline]: input.headline };
  const [word1, word2] = input.words;
  return { word1, word2, [columns.word1]: word1, [columns.word2]: word2 };
}

function outputOf({ text }: Prompt, { ids, finishReason }: Completion, { tokenizer }: Policy): GenerateOutput {
  const written = { completionIds: ids, finishReason };
  if (text === undefined || tokenizer === undefined) return written;
  return { prompt: text, completion: tokenizer.decode(ids, { skipSpecialTokens: true }), ...written };
}

/** @param plain what stands for a prompt, where it is to be read otherwise than it was written */
type Judge = (outputs: readonly GenerateOutput[], plain: readonly (string | undefined)[]) => Promise<GenerateOutput[]>;

const REWARDED_AT_ONCE = 16;

/** A reward model as what adds the reward to texts. */
async function openJudge(runtime: Runtime, dir: string, policy: Policy): Promise<Judge> {
  const rewardModel = await RewardModel.open(runtime, dir);
  const without =
    policy.tokenizer === undefined ? policy.folder.dir : rewardModel.tokenizer === undefined ? dir : undefined;
  if (without !== undefined) {
    throw new UserError({
      code: 'tokenizer.missing-file',
      message: 'The reward model reads texts, but the folder has no tokenizer.',
      where: without,
      fix: 'Add tokenizer.json and tokenizer_config.json to it, or leave the reward model out.',
    });
  }
  return async (outputs, plain) => {
    const pairs = outputs.map(({ prompt = '', completion = '' }, i) => ({ prompt: plain[i] ?? prompt, completion }));
    const rewards = await rewardModel.score(pairs, { batchSize: REWARDED_AT_ONCE });
    return outputs.map((output, i) => ({ ...output, reward: rewards[i]! }));
  };
}

/** The first of those with the highest reward. */
const bestRewarded = (candidates: readonly GenerateOutput[]): GenerateOutput =>
  candidates.reduce((best, each) => ((each.reward ?? -Infinity) > (best.reward ?? -Infinity) ? each : best));
