import { afterAll, expect, it } from 'vitest';
import { TINY_BERT, TINY_CLASSIFIER, TINY_ROBERTA } from '../../tests/support/tiny-encoder.js';
import { ModelContext } from '../nn/context.js';
import { firstToken, type Judged } from '../nn/encoder.js';
import { newGraph } from '../ops/registry.js';
import { Runtime } from '../runtime/runtime.js';
import { collateTexts } from '../text/collate.js';
import { dropoutFeeds } from '../training/dropout.js';
import { initialWeights } from '../training/initial-weights.js';
import type { EncoderConfig } from './config/model-config.js';
import { encoderFeeds, encoderHidden } from './encoder.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const texts = [
  [2, 30, 31, 3],
  [2, 33, 34, 35, 36, 3],
];

async function firstStates(config: EncoderConfig, judged: Judged, training: boolean): Promise<Float32Array> {
  const context = new ModelContext(newGraph(), { training, copies: 2 });
  context.graph.output('first', firstToken(encoderHidden(context, config, judged)));
  const program = await runtime.compile(context.graph);
  const feeds = {
    ...encoderFeeds(config, collateTexts(texts, { padId: 0 })),
    ...Object.fromEntries(initialWeights(context.weights, config.initializerRange, 1)),
    ...(training ? dropoutFeeds(7, 3, [0, 1]) : {}),
  };
  const { first } = await program.run(feeds);
  return first!.data as Float32Array;
}

it.each([
  ['DeBERTa', TINY_CLASSIFIER],
  ['DeBERTa with one block and a convolution', { ...TINY_CLASSIFIER, numHiddenLayers: 1, convKernelSize: 3 }],
  ['BERT', TINY_BERT],
  ['RoBERTa', TINY_ROBERTA],
])('%s computes for the first tokens alone what it computes for all, dropout included', async (_, config) => {
  for (const training of [false, true]) {
    const all = await firstStates(config, 'all', training);
    const alone = await firstStates(config, 'first', training);
    expect(Math.max(...alone.map((value, i) => Math.abs(value - all[i]!)))).toBeLessThan(1e-6);
  }
});
