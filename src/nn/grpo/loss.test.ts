import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { backward } from '../../autodiff/backward.js';
import { KL_ESTIMATORS } from '../../config/grpo-loss.js';
import { wrap, type Tensor } from '../../graph/tensor.js';
import { newGraph } from '../../ops/registry.js';
import { stream } from '../../random.js';
import { Runtime } from '../../runtime/runtime.js';
import { grpoLoss, needsSequences } from './loss.js';
import { plainLoss, type GrpoLossSettings } from './settings.js';
import { quantileRank } from './token-weights.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

/** Tokens of three completions. */
const of = [0, 0, 0, 1, 2, 2];
const floats = ['logprobs', 'old', 'ref', 'sampler', 'correction', 'advantages', 'weights', 'entropies', 'share'];

async function compiled(settings: GrpoLossSettings) {
  const graph = newGraph();
  const token = Object.fromEntries(floats.map((name) => [name, graph.input(name, 'float64', ['N'])]));
  const rank = { neighbours: graph.input('neighbours', 'int32', [2]), share: graph.input('rank', 'float64', []) };
  const { loss } = grpoLoss(
    {
      logProbs: token['logprobs']!,
      oldLogProbs: token['old']!,
      refLogProbs: token['ref'],
      samplerLogProbs: token['sampler'],
      correction: settings.rolloutCorrection === undefined ? undefined : token['correction'],
      advantages: token['advantages']!,
      weights: token['weights']!,
      entropies: token['entropies'],
      sequences: needsSequences(settings)
        ? { of: graph.input('of', 'int32', ['N']), share: token['share']!, count: 3 }
        : undefined,
      rank: settings.topEntropyQuantile < 1 ? rank : undefined,
      bonusWeight: settings.entropyBonus ? graph.input('bonus', 'float64', []) : undefined,
    },
    settings,
  );
  graph.output('loss', loss);
  const [logProbs, entropies] = backward(loss, [token['logprobs']!, token['entropies']!]);
  graph.output('d logprobs', logProbs!);
  graph.output('d entropies', entropies!);
  return runtime.compile(graph);
}

function drawn(seed: number): Record<string, number[]> {
  const random = stream(seed);
  const values = (low: number, high: number): number[] => of.map(() => low + (high - low) * random.uniform());
  const lengths = [3, 1, 2];
  return {
    logprobs: values(-3, -0.5),
    old: values(-3, -0.5),
    ref: values(-3, -0.5),
    sampler: values(-3, -0.5),
    correction: values(0.3, 2),
    advantages: of.map((row) => [1.3, -0.7, -0.2][row]!),
    weights: values(0.1, 1),
    entropies: values(0.5, 3),
    share: of.map((row) => 1 / lengths[row]!),
  };
}

const cases: Record<string, GrpoLossSettings> = {
  ...Object.fromEntries(
    KL_ESTIMATORS.flatMap((klEstimator) =>
      [true, false].map((useBiasCorrectionKl) => [
        `${klEstimator}, bias ${useBiasCorrectionKl ? 'corrected' : 'left'}`,
        { ...plainLoss, lossType: 'sapo', beta: 0.4, klEstimator, useBiasCorrectionKl },
      ]),
    ),
  ),
  'sapo, one ratio a completion': { ...plainLoss, lossType: 'sapo', importanceSamplingLevel: 'sequence' },
  'δ and a corrected rollout': {
    ...plainLoss,
    delta: 1.4,
    rolloutCorrection: { mode: 'token_truncate', max: 2, min: undefined },
  },
  'entropy quantile and bonus': { ...plainLoss, topEntropyQuantile: 0.5, entropyBonus: true },
};

describe('the gradient of the loss', () => {
  it.each(Object.keys(cases))('equals central differences of its own value: %s', async (name) => {
    const settings = cases[name]!;
    const program = await compiled(settings);
    const rank = quantileRank(of.length, 1 - settings.topEntropyQuantile);
    const run = (values: Record<string, number[]>) => {
      const given: Record<string, Tensor> = {
        ...Object.fromEntries(
          Object.entries(values).map(([key, data]) => [key, wrap('float64', [of.length], Float64Array.from(data))]),
        ),
        of: wrap('int32', [of.length], Int32Array.from(of)),
        neighbours: wrap('int32', [2], Int32Array.of(rank.below, rank.above)),
        rank: wrap('float64', [], Float64Array.of(rank.share)),
        bonus: wrap('float64', [], Float64Array.of(0.3)),
      };
      return program.run(Object.fromEntries([...program.inputs.keys()].map((key) => [key, given[key]!])));
    };
    await fc.assert(
      fc.asyncProperty(fc.nat(), async (seed) => {
        const values = drawn(seed);
        const result = await run(values);
        for (const key of ['logprobs', 'entropies']) {
          for (let t = 0; t < of.length; t++) {
            const at = async (step: number): Promise<number> =>
              Number((await run({ ...values, [key]: values[key]!.with(t, values[key]![t]! + step) }))['loss']!.data[0]);
            const slope = ((await at(1e-5)) - (await at(-1e-5))) / 2e-5;
            expect(Math.abs(Number(result[`d ${key}`]!.data[t]) - slope), `${key} ${t}`).toBeLessThanOrEqual(1e-7);
          }
        }
      }),
      // A step over a kink, where a difference is no slope, is improbable but not impossible.
      { numRuns: 2, seed: 6 },
    );
    await program.dispose();
  });
});

describe('the rank of a quantile', () => {
  it('is that of sorted values, interpolated', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 40 }),
        fc.constantFrom(0, 0.2, 0.5, 0.6, 0.8, 0.95),
        (values, q) => {
          const descending = [...values].sort((a, b) => b - a);
          const { below, above, share } = quantileRank(values.length, q);
          const border = descending[below]! + share * (descending[above]! - descending[below]!);
          const atLeast = values.filter((value) => value >= border).length;
          const position = q * (values.length - 1);
          // As many values reach the border as have a rank from it up; equal values may be more.
          expect(atLeast).toBeGreaterThanOrEqual(values.length - Math.ceil(position - 1e-6));
          expect(values.filter((value) => value < border - 1e-4).length).toBeLessThanOrEqual(Math.ceil(position));
        },
      ),
    );
  });
});
