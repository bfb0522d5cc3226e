import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { TINY } from '../../tests/support/tiny-model.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { ModelContext } from '../nn/context.js';
import { newGraph } from '../ops/registry.js';
import { Runtime } from '../runtime/runtime.js';
import { collateTexts } from '../text/collate.js';
import { initialWeights } from '../training/initial-weights.js';
import { classifierFeeds, classifierLogits } from './classifier.js';
import type { CausalConfig } from './config/causal.js';
import { asRows, asTokens, packedFeeds, packedTokens, predictionsOf } from './packed-tokens.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const values = ({ data }: Tensor): number[] => Array.from(data, Number);

describe('packedFeeds', () => {
  it('lines sequences up, and says where in a row each token stands', () => {
    const feeds = packedFeeds([[7, 8, 9], [4]]);
    expect(values(feeds['input_ids']!)).toEqual([7, 8, 9, 4]);
    expect(values(feeds['position_ids']!)).toEqual([0, 1, 2, 0]);
    expect(feeds['token_at']!.shape).toEqual([2, 3]);
    expect(values(feeds['token_at']!)).toEqual([0, 1, 2, 3, -1, -1]);
    expect(values(feeds['place_of']!)).toEqual([0, 1, 2, 3]);
    expect(() => packedFeeds([[1], []])).toThrow('a sequence has no token');
  });

  it('brings every token to its row and back', async () => {
    const graph = newGraph();
    const tokens = packedTokens(new ModelContext(graph));
    const rows = asRows(graph.input('x', 'float32', ['S', 2]), tokens);
    graph.output('rows', rows);
    graph.output('back', asTokens(rows, tokens));
    const program = await runtime.compile(graph);
    const sequence = fc.array(fc.integer({ min: 1, max: 99 }), { minLength: 1, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(fc.array(sequence, { minLength: 1, maxLength: 4 }), async (sequences) => {
        const x = sequences.flat().flatMap((id) => [id, -id]);
        const { input_ids, position_ids, ...layout } = packedFeeds(sequences);
        expect([input_ids!.shape, position_ids!.shape]).toEqual([layout['place_of']!.shape, layout['place_of']!.shape]);
        const result = await program.run({ ...layout, x: tensor('float32', [x.length / 2, 2], x) });
        const longest = Math.max(...sequences.map(({ length }) => length));
        const padded = sequences.flatMap((ids) => [...ids, ...new Array<number>(longest - ids.length).fill(0)]);
        expect(values(result['rows']!)).toEqual(padded.flatMap((id) => [id, id === 0 ? 0 : -id]));
        expect(values(result['back']!)).toEqual(x);
      }),
      { numRuns: 20 },
    );
    await program.dispose();
  });
});

it('predictionsOf counts tokens from the second on, each predicted by the one before', () => {
  const samples = [
    { inputIds: [5, 6, 7], completionMask: [1, 0, 1] },
    { inputIds: [8], completionMask: [1] },
    { inputIds: [9, 10], completionMask: [0, 1] },
  ] as const;
  expect(predictionsOf(samples)).toEqual({ rows: [1, 4], targets: [7, 10], sequences: [0, 2] });
});

it('a causal classifier scores every copy of a batch as it scores the batch', async () => {
  const config: CausalConfig = { ...TINY, labels: ['0', '1'] };
  const batch = { inputIds: Int32Array.of(5, 6, 7, 8, 9, 318), attentionMask: Int32Array.of(1, 1, 1, 1, 1, 0) };
  const logitsOf = async (copies: number): Promise<number[]> => {
    const context = new ModelContext(newGraph(), { copies });
    context.graph.output('logits', classifierLogits(context, config));
    const program = await runtime.compile(context.graph);
    const feeds = classifierFeeds(config, { ...batch, batch: 2, length: 3 });
    const { logits } = await program.run({ ...feeds, ...Object.fromEntries(initialWeights(context.weights, 0.1, 1)) });
    await program.dispose();
    return values(logits!);
  };
  const once = await logitsOf(1);
  expect(once).toHaveLength(4);
  expect(new Set(once).size).toBe(4);
  const twice = await logitsOf(2);
  for (const [i, logit] of twice.entries()) expect(logit).toBeCloseTo(once[i % 4]!, 6);
});

it('a causal classifier judges an empty text by a token of padding', () => {
  const config: CausalConfig = { ...TINY, labels: ['0', '1'] };
  const feeds = classifierFeeds(config, collateTexts([[5, 6], []], { padId: TINY.padTokenId! }));
  expect(values(feeds['input_ids']!)).toEqual([5, 6, TINY.padTokenId]);
  expect(values(feeds['last_token']!)).toEqual([1, 2]);
  expect(values(classifierFeeds(config, collateTexts([[]], { padId: 7 }))['input_ids']!)).toEqual([7]);
});
