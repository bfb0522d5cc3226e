import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { rmSection } from '../../src/config/rm.js';
import { Runtime } from '../../src/runtime/runtime.js';
import {
  classificationGraph,
  classificationParts,
  passesOf,
  tokensAtOnceOf,
} from '../../src/training/classification.js';
import { classifierConfig, startingWeights } from '../../src/training/classifier-start.js';
import { dropoutFeeds, dropsOut } from '../../src/training/dropout.js';
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
  const precision = setup.quantization === 'int8' ? 'int8' : 'float32';
  const training = classificationGraph(config, { ...section, precision, recompute: setup.recompute });
  const { initial } = startingWeights(folder, training.context.weights, 0);
  const learner = await Learner.create(runtime, {
    graph: training.graph,
    loss: training.loss,
    trainable: training.context.weights,
    initial,
    adamw: section,
  });
  const batches = await rmBatches(setup, config, section);
  const cost = costOf(folder);
  const passes = passesOf(config, section.rdropAlpha);
  const cutting = { padId: config.padTokenId ?? 0, passes, tokensAtOnce: tokensAtOnceOf(section, passes) };
  // Of the last block an encoder's head reads the first token alone, which attends to keys and values of all.
  const perBlock = cost.layerWeights / cost.layers;
  const inner = cost.layerWeights - perBlock;
  const all = config.kind === 'encoder' ? 2 * config.hiddenSize ** 2 : perBlock;
  const last = { all, first: perBlock - all };
  let step = 0;
  return {
    description: `all weights of ${cost.description}, R-Drop, ${batches.description}`,
    once: async () => {
      const { sequences, labels } = batches.batch(step);
      const parts = classificationParts(config, { sequences, labels }, cutting);
      const feeds = parts.map((part) => ({
        ...part.feeds,
        ...(dropsOut(config) ? dropoutFeeds(0, step, part.rows) : {}),
      }));
      step++;
      const seconds = await timed(() => learner.step(feeds, section.learningRate));
      const real = sequences.reduce((sum, { length }) => sum + length, 0);
      const padded = parts.reduce((sum, { tokens }) => sum + tokens.inputIds.length, 0);
      return {
        seconds,
        flops: 6 * passes * (inner * real + last.all * real + last.first * sequences.length),
        amounts: { samples: sequences.length, 'real tokens': real, 'padded tokens': padded },
      };
    },
  };
}
