import { placeOfInput, type ScoreInput, type ScoreOutput } from '../config/records.js';
import type { ScoreConfig } from '../config/stages.js';
import { UserError } from '../errors.js';
import { checkSequence } from '../generation/check-sequence.js';
import { openPolicy, requireTokenizer, uploadAdapter, type Policy } from '../generation/policy.js';
import { Scorer } from '../generation/scorer.js';
import type { MaskedSequence } from '../models/packed-tokens.js';
import { withLocalModels } from '../hub/local-models.js';
import type { StageContext } from '../runs/events.js';
import { tokenizePair } from '../text/encode-pair.js';
import { requireChat } from '../text/samples.js';
import { openRuntime } from '../training/open-runtime.js';

/** Logits computed at once, scored tokens × vocabulary: 128 MB of float32. */
const LOGITS_AT_ONCE = 32 * 2 ** 20;
const SEQUENCES_AT_ONCE = 16;

/**
 * Log-probabilities of given completions, in the order of the inputs: natural logarithms at temperature 1, one for each
 * token of the completion. Nothing is added to a text; an EOS counts where the completion ends with it. The first token
 * of a sequence has no probability, because nothing stands before it.
 *
 * All inputs are checked before anything is computed.
 *
 * @throws UserError for a model, adapter or input that is wrong
 */
export async function* score(
  given: ScoreConfig,
  inputs: readonly ScoreInput[],
  context: StageContext,
): AsyncGenerator<ScoreOutput> {
  const config = await withLocalModels(given, context);
  const policy = await openPolicy(config.model, config.adapter);
  const sequences = inputs.map((input, i) => readSequence(input, policy, placeOfInput(input, i)));
  const runtime = await openRuntime(config, context);
  try {
    const scorer = await Scorer.create(runtime, policy.model);
    const adapter = await uploadAdapter(runtime, policy);
    let done = 0;
    for (const batch of batches(sequences, policy.config.vocabSize)) {
      context.signal?.throwIfAborted();
      const options = { temperature: 1, batchSize: batch.length, ...adapter };
      const results = await scorer.logProbabilities(batch, options);
      done += batch.length;
      context.onEvent({ type: 'progress', task: 'score', done, total: sequences.length });
      for (const logprobs of results) yield summarise(logprobs);
    }
  } finally {
    await runtime.close();
  }
}

function readSequence(input: ScoreInput, policy: Policy, where: string): MaskedSequence {
  const sequence = 'inputIds' in input ? input : encode(input, policy, where);
  checkSequence(sequence.inputIds, policy.config, { room: 0, where });
  if (countScored(sequence) > 0) return sequence;
  throw new UserError({
    code: 'score.no-tokens',
    message: 'There is no token to score: the completion is empty, or nothing stands before it.',
    where,
    fix: 'Mark at least one token after the first with a 1 in completion_mask, or give a prompt and a completion.',
  });
}

function encode(input: Exclude<ScoreInput, MaskedSequence>, policy: Policy, where: string): MaskedSequence {
  const tokenizer = requireTokenizer(policy);
  const { prompt, completion } =
    'messages' in input ? requireChat(policy.chat, policy.folder.dir, where).pair(input.messages, where) : input;
  const { ids, promptLength } = tokenizePair(tokenizer, prompt, completion);
  return { inputIds: ids, completionMask: ids.map((_, i) => (i < promptLength ? 0 : 1)) };
}

const countScored = ({ completionMask }: MaskedSequence): number =>
  completionMask.reduce<number>((count, bit, i) => (i > 0 ? count + bit : count), 0);

/** Neighbours that are computed together, as many as the logits have room for, and at least one. */
function* batches(sequences: readonly MaskedSequence[], vocabSize: number): Generator<MaskedSequence[]> {
  let batch: MaskedSequence[] = [];
  let logits = 0;
  for (const sequence of sequences) {
    const more = countScored(sequence) * vocabSize;
    if (batch.length > 0 && (batch.length === SEQUENCES_AT_ONCE || logits + more > LOGITS_AT_ONCE)) {
      yield batch;
      [batch, logits] = [[], 0];
    }
    batch.push(sequence);
    logits += more;
  }
  yield batch;
}

function summarise(values: Float32Array): ScoreOutput {
  const logprobs = [...values];
  const sum = logprobs.reduce((total, value) => total + value, 0);
  return { logprobs, sum, mean: sum / logprobs.length, tokens: logprobs.length };
}
