import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { rmSection } from '../../src/config/rm.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { collateTexts } from '../../src/text/collate.js';
import { classificationFeeds, classificationGraph } from '../../src/training/classification.js';
import { classifierConfig, startingWeights } from '../../src/training/classifier-start.js';
import { dropoutSeed, dropsOut } from '../../src/training/dropout.js';
import { Learner } from '../../src/training/learner.js';
import { rmBatches } from '../batches.js';
import { costOf } from '../cost.js';
import { timed, type Setup, type Work } from '../work.js';

/** An optimizer step of the reward model as the stage takes it by default: all parameters learn, two passes of R-Drop. */
export async function rm(setup: Setup): Promise<Work> {
  const section = rmSection.parse({});
  const folder = await openModelFolder(setup.rm);
  const config = classifierConfig(folder, undefined);
  const runtime = new Runtime({ threads: setup.threads });
  const training = classificationGraph(config, section);
  const { tensors } = await startingWeights(folder, training.context.weights, 0);
  const learner = await Learner.create(runtime, {
    graph: training.graph,
    loss: training.loss,
    trainable: training.context.weights,
    initial: tensors,
    adamw: section,
  });
  const batches = await rmBatches(setup, config, section);
  const cost = costOf(folder);
  const passes = dropsOut(config) ? 2 : 1;
  let step = 0;
  return {
    description: `all weights of ${cost.description}, R-Drop, ${batches.description}`,
    once: async () => {
      const { sequences, labels } = batches.batch(step);
      const tokens = collateTexts(sequences, { padId: config.padTokenId ?? 0 });
      const seed = passes === 2 ? dropoutSeed(0, step) : {};
      step++;
      const feeds = { ...classificationFeeds(config, tokens, labels), ...seed };
      const seconds = await timed(() => learner.step([feeds], section.learningRate));
      const real = tokens.attentionMask.reduce((a, b) => a + b, 0);
      return {
        seconds,
        flops: 6 * cost.layerWeights * real * passes,
        amounts: { samples: sequences.length, 'real tokens': real, 'padded tokens': tokens.inputIds.length },
      };
    },
  };
}
