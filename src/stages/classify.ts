import { placeOfInput, type ClassifyInput, type ClassifyOutput } from '../config/records.js';
import type { ClassifyConfig } from '../config/stages.js';
import { withLocalModels } from '../hub/local-models.js';
import { humorousProbability, RewardModel } from '../rewards/reward-model.js';
import type { StageContext } from '../runs/events.js';
import { openRuntime } from '../training/open-runtime.js';

/** Texts that are computed together. */
const BATCH_SIZE = 16;
/** Texts that are sorted by length before they are put into batches; results come as each such part is done. */
const SORTED_TOGETHER = 256;

/**
 * Logits of a reward model and the probability of "humorous", in the order of the inputs. Prompt and completion are read
 * as one text, as in training, and cut like there; token ids are taken as they are.
 *
 * All inputs are checked before anything is computed.
 *
 * @throws UserError for a model or input that is wrong
 */
export async function* classify(
  given: ClassifyConfig,
  inputs: readonly ClassifyInput[],
  context: StageContext,
): AsyncGenerator<ClassifyOutput> {
  const config = await withLocalModels(given, context);
  const runtime = await openRuntime(config, context);
  try {
    const model = await RewardModel.open(runtime, config.model);
    const sequences = inputs.map((input, i) => idsOf(input, model, placeOfInput(input, i)));
    for (let start = 0; start < sequences.length; start += SORTED_TOGETHER) {
      const results = await model.logitsOfIds(sequences.slice(start, start + SORTED_TOGETHER), {
        batchSize: BATCH_SIZE,
        onProgress: (done) => {
          context.signal?.throwIfAborted();
          context.onEvent({ type: 'progress', task: 'classify', done: start + done, total: sequences.length });
        },
      });
      for (const logits of results) yield { logits, probability: humorousProbability(logits) };
    }
  } finally {
    await runtime.close();
  }
}

function idsOf(input: ClassifyInput, model: RewardModel, where: string): readonly number[] {
  const ids =
    'inputIds' in input ? input.inputIds : model.encode('text' in input ? input.text : input.prompt + input.completion);
  model.check(ids, where);
  return ids;
}
