import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOSS_TYPES } from '../../src/config/grpo-loss.js';
import { openPolicy, type Policy } from '../../src/generation/policy.js';
import { Scorer } from '../../src/generation/scorer.js';
import { plainLoss, type GrpoLossSettings } from '../../src/nn/grpo/settings.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import type { RolloutSample } from '../../src/stages/grpo/batch.js';
import { grpoGraph } from '../../src/stages/grpo/graph.js';
import { grpoStep } from '../../src/stages/grpo/step.js';
import { Learner } from '../../src/training/learner.js';
import { excess } from '../support/golden.js';
import { TINY, writeTinyAdapter, writeTinyModel } from '../support/tiny-model.js';

/*
 * A loss is over a batch. That memory asks for the batch to be cut into micro-batches must not matter, whatever it is
 * averaged over.
 */

const runtime = new Runtime({ threads: 1 });
let folder: string;
let policy: Policy;
let scorer: Scorer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duanzi-grpo-batches-'));
  await writeTinyModel(join(folder, 'model'));
  await writeTinyAdapter(join(folder, 'adapter'));
  policy = await openPolicy(join(folder, 'model'), join(folder, 'adapter'));
  scorer = await Scorer.create(runtime, policy.model);
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

const tokens = (minLength: number, maxLength: number): fc.Arbitrary<number[]> =>
  fc.array(fc.integer({ min: 0, max: TINY.vocabSize - 1 }), { minLength, maxLength });

interface Drawn {
  readonly promptIds: number[];
  readonly completionIds: number[];
  readonly learned: boolean;
}

const completions: fc.Arbitrary<Drawn[]> = fc.array(
  fc.record({ promptIds: tokens(1, 3), completionIds: tokens(1, 7), learned: fc.nat(3).map((n) => n > 0) }),
  { minLength: 4, maxLength: 4 },
);

/** Completions that a policy, a reference and a sampler near the one that learns gave their probabilities. */
async function samplesOf(drawn: readonly Drawn[], seed: number): Promise<RolloutSample[]> {
  const own = await scorer.logProbabilities(
    drawn.map(({ promptIds, completionIds }) => ({
      inputIds: [...promptIds, ...completionIds],
      completionMask: [...promptIds.map(() => 0 as const), ...completionIds.map(() => 1 as const)],
    })),
    { temperature: 0.8, batchSize: 4, adapter: policy.adapter! },
  );
  return drawn.map((each, i) => {
    const random = stream(seed, i);
    const near = (spread: number): number[] => Array.from(own[i]!, (value) => value + spread * random.normal());
    const [oldLogProbs, refLogProbs, samplerLogProbs] = [near(0.3), near(0.3), near(0.4)];
    return { ...each, advantage: random.normal(), oldLogProbs, refLogProbs, samplerLogProbs };
  });
}

const base: GrpoLossSettings = { ...plainLoss, beta: 0.05 };
const cases: Record<string, GrpoLossSettings> = {
  ...Object.fromEntries(LOSS_TYPES.map((lossType) => [lossType, { ...base, lossType }])),
  'grpo, one ratio a completion': { ...base, lossType: 'grpo', importanceSamplingLevel: 'sequence' },
  'luspo, one ratio a completion, KL k1': {
    ...base,
    lossType: 'luspo',
    importanceSamplingLevel: 'sequence',
    klEstimator: 'k1',
  },
  'bnpo with an entropy bonus': { ...base, lossType: 'bnpo', entropyBonus: true },
  'dapo without what is off-policy': { ...base, offPolicyMaskThreshold: 0.05 },
  'vespo of a corrected rollout': {
    ...base,
    lossType: 'vespo',
    rolloutCorrection: { mode: 'token_truncate', max: 1.2, min: 0.5 },
  },
};

/** Loss, metrics and gradients of one step that leaves the weights as they are. */
async function stepOn(
  learner: Learner,
  loss: GrpoLossSettings,
  batches: readonly (readonly RolloutSample[])[],
  microBatchSize?: number,
) {
  const learned = batches.flat().reduce((total, each) => total + (each.learned ? each.completionIds.length : 0), 0);
  const { metrics, activeEntropy } = await grpoStep(learner, batches, 0, {
    loss,
    scale: { maxCompletionLength: 8, rolloutTokens: 2 * learned, rolloutBatches: 2 * batches.length },
    entropyCoef: 0.1,
    microBatchSize,
  });
  const gradients = new Map<string, Float32Array>();
  for (const [name, buffer] of learner.optimizer.gradients)
    gradients.set(name, (await buffer.read()).data as Float32Array);
  const values: Record<string, number> = { ...metrics, activeEntropy };
  return { values, gradients };
}

type Outcome = Awaited<ReturnType<typeof stepOn>>;

function expectSame(other: Outcome, whole: Outcome): void {
  const norm = whole.values['grad_norm']!;
  // Sums of a dozen numbers of the size of the gradient's norm, in another order.
  const atol = 2e-6 * Math.max(norm, 1);
  for (const [name, value] of Object.entries(whole.values))
    expect(Math.abs(other.values[name]! - value), name).toBeLessThanOrEqual(atol);
  for (const [name, gradient] of whole.gradients)
    expect(excess(other.gradients.get(name)!, gradient, { atol }), name).toBeLessThanOrEqual(0);
}

const learnerOf = async (settings: GrpoLossSettings): Promise<Learner> => {
  const { context, loss } = grpoGraph(TINY, policy.model.lora!, { ...settings, temperature: 0.8 });
  return Learner.create(runtime, {
    graph: context.graph,
    loss,
    trainable: context.loraWeights,
    initial: new Map(Object.entries(policy.adapter!)),
    frozen: policy.folder.weights,
    adamw: { weightDecay: 0 },
  });
};

describe('a batch of completions', () => {
  it.each(Object.keys(cases))('has the same gradient whole, in halves and one by one: %s', async (name) => {
    const learner = await learnerOf(cases[name]!);
    await fc.assert(
      fc.asyncProperty(completions, fc.nat(), async (drawn, seed) => {
        const samples = await samplesOf(drawn, seed);
        const whole = await stepOn(learner, cases[name]!, [samples]);
        for (const size of [2, 1]) expectSame(await stepOn(learner, cases[name]!, [samples], size), whole);
      }),
      { numRuns: 2 },
    );
    await learner.dispose();
  });

  // bnpo averages over the tokens of each batch by definition.
  it.each(LOSS_TYPES.filter((lossType) => lossType !== 'bnpo'))(
    'has the same gradient as its halves accumulated: %s',
    async (lossType) => {
      const settings = { ...base, lossType };
      const learner = await learnerOf(settings);
      await fc.assert(
        fc.asyncProperty(completions, fc.nat(), async (drawn, seed) => {
          const samples = await samplesOf(drawn, seed);
          const whole = await stepOn(learner, settings, [samples]);
          const halves = await stepOn(learner, settings, [samples.slice(0, 2), samples.slice(2)]);
          for (const part of ['loss', 'grad_norm'])
            expect(Math.abs(halves.values[part]! - whole.values[part]!), part).toBeLessThanOrEqual(
              2e-6 * Math.max(whole.values['grad_norm']!, 1),
            );
          for (const [name, gradient] of whole.gradients)
            expect(
              excess(halves.gradients.get(name)!, gradient, { atol: 2e-6 * Math.max(whole.values['grad_norm']!, 1) }),
              name,
            ).toBeLessThanOrEqual(0);
        }),
        { numRuns: 2 },
      );
      await learner.dispose();
    },
  );
});
