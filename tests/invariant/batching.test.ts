import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Decoder, type Completion } from '../../src/generation/decoder.js';
import { filteredProbabilities } from '../../src/generation/filtered-probabilities.js';
import { openPolicy, type Policy } from '../../src/generation/policy.js';
import { unfiltered, type SamplingSettings } from '../../src/generation/sampling-settings.js';
import { Scorer } from '../../src/generation/scorer.js';
import { tensor, zeros, type Tensor } from '../../src/graph/tensor.js';
import { pastName, freshName, causalDecoder, causalHidden, causalLogits } from '../../src/models/causal.js';
import { packedFeeds, packedTokens, type MaskedSequence } from '../../src/models/packed-tokens.js';
import { ModelContext } from '../../src/nn/context.js';
import { newGraph } from '../../src/ops/registry.js';
import { stream } from '../../src/random.js';
import { Runtime, type Program } from '../../src/runtime/runtime.js';
import { sftStep } from '../../src/stages/sft.js';
import { causalGraph } from '../../src/training/language.js';
import { Learner } from '../../src/training/learner.js';
import { excess } from '../support/golden.js';
import { TINY, tinyWeights, writeTinyAdapter, writeTinyModel } from '../support/tiny-model.js';

/*
 * How samples are put together must not matter: to a gradient, to a text, to a probability. Sums in another order differ
 * in their last bits; where these could turn a choice, fast-check's seed is fixed.
 */

const runtime = new Runtime({ threads: 1 });
let folder: string;
let policy: Policy;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duanzi-batching-'));
  await writeTinyModel(join(folder, 'model'));
  await writeTinyAdapter(join(folder, 'adapter'));
  policy = await openPolicy(join(folder, 'model'), join(folder, 'adapter'));
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

const tokenIds = (minLength: number, maxLength: number): fc.Arbitrary<number[]> =>
  fc.array(fc.integer({ min: 0, max: TINY.vocabSize - 1 }), { minLength, maxLength });

describe('gradients', () => {
  const sample: fc.Arbitrary<MaskedSequence> = fc
    .tuple(tokenIds(2, 12), fc.nat(11))
    .map(([inputIds, promptLength]) => ({
      inputIds,
      completionMask: inputIds.map((_, i) => (i < Math.min(promptLength, inputIds.length - 1) ? 0 : 1)),
    }));

  /** A step that leaves the weights as they are: loss, norm, and the gradient of each parameter. */
  async function stepOn(learner: Learner, batches: readonly (readonly MaskedSequence[])[]) {
    const metrics = await sftStep(learner, batches, 0, []);
    const gradients = new Map<string, Float32Array>();
    for (const [name, buffer] of learner.optimizer.gradients) {
      gradients.set(name, (await buffer.read()).data as Float32Array);
    }
    return { metrics, gradients };
  }

  const learners: Record<string, () => Promise<Learner>> = {
    'of an adapter': async () => {
      const { graph, loss, context } = causalGraph(TINY, { ...policy.model, statistics: true });
      const initial = new Map(Object.entries(policy.adapter!));
      const frozen = policy.folder.weights;
      return Learner.create(runtime, { graph, loss, trainable: context.loraWeights, initial, frozen, adamw });
    },
    'of all parameters': async () => {
      const { graph, loss, context } = causalGraph(TINY, { statistics: true });
      return Learner.create(runtime, { graph, loss, trainable: context.weights, initial: tinyWeights(), adamw });
    },
  };
  const adamw = { weightDecay: 0 };

  it.each(Object.keys(learners))('%s are the same for a batch, two halves and every sample alone', async (which) => {
    const learner = await learners[which]!();
    await fc.assert(
      fc.asyncProperty(fc.array(sample, { minLength: 4, maxLength: 4 }), async (samples) => {
        const whole = await stepOn(learner, [samples]);
        const halves = await stepOn(learner, [samples.slice(0, 2), samples.slice(2)]);
        const alone = await stepOn(
          learner,
          samples.map((each) => [each]),
        );
        for (const other of [halves, alone]) {
          expect(other.metrics.tokens).toBe(whole.metrics.tokens);
          for (const name of ['loss', 'grad_norm']) {
            expect(Math.abs(other.metrics[name]! / whole.metrics[name]! - 1), name).toBeLessThanOrEqual(2e-6);
          }
          for (const [name, gradient] of whole.gradients) {
            const atol = 1e-6 * whole.metrics['grad_norm']!;
            expect(excess(other.gradients.get(name)!, gradient, { atol }), name).toBeLessThanOrEqual(0);
          }
        }
      }),
      { numRuns: 20 },
    );
    await learner.dispose();
  });
});

describe('decoding', () => {
  const greedy: SamplingSettings = { ...unfiltered, temperature: 0 };
  const options = (prompts: readonly number[], sampling: SamplingSettings, batchSize: number) => ({
    maxNewTokens: 12,
    sampling,
    eosTokenIds: new Set([3, 40, 77, 130, 200, 201, 202, 203, 204]),
    padTokenId: TINY.padTokenId!,
    batchSize,
    random: (at: number) => stream(5, prompts[at]!),
    adapter: policy.adapter!,
  });

  it.each([
    ['greedy', greedy],
    ['sampled', { ...unfiltered, temperature: 1.3, topP: 0.95 }],
  ] as const)('%s texts do not depend on the order of prompts or on the batch size', async (_, sampling) => {
    const decoder = await Decoder.create(runtime, policy.model);
    const prompts = fc.array(tokenIds(1, 40), { minLength: 1, maxLength: 7 });
    const ways = prompts.chain((all) =>
      fc.tuple(
        fc.constant(all),
        fc.shuffledSubarray([...all.keys()], { minLength: all.length }),
        fc.integer({ min: 1, max: 8 }),
      ),
    );
    await fc.assert(
      fc.asyncProperty(ways, async ([all, order, batchSize]) => {
        const inOrder = [...all.keys()];
        const alone = await decoder.generate(all, options(inOrder, sampling, 1));
        const shuffled = await decoder.generate(
          order.map((i) => all[i]!),
          options(order, sampling, batchSize),
        );
        expect(shuffled.map(textOf)).toEqual(order.map((i) => textOf(alone[i]!)));
      }),
      { numRuns: 15, seed: 1 },
    );
    await decoder.dispose();
  });

  const textOf = ({ ids, finishReason }: Completion) => ({ ids, finishReason });

  /** How far a uniform number is from those that draw a token. */
  function distanceTo(probabilities: Float64Array, token: number, uniform: number): number {
    const below = probabilities.subarray(0, token).reduce((sum, p) => sum + p, 0);
    return Math.max(0, below - uniform, uniform - below - probabilities[token]!);
  }

  it('refill and shared prompts change a text only where the choice lies within rounding', async () => {
    const sampling = { ...unfiltered, temperature: 1.3 };
    const decoder = await Decoder.create(runtime, policy.model);
    const uncached = await uncachedProgram();
    const groups = fc.array(fc.tuple(tokenIds(1, 40), fc.integer({ min: 1, max: 4 })), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(groups, fc.integer({ min: 1, max: 6 }), async (asked, batchSize) => {
        const prompts = asked.flatMap(([prompt, samples]) => Array<number[]>(samples).fill(prompt));
        const together = await decoder.generate(prompts, options([...prompts.keys()], sampling, batchSize));
        for (const [i, prompt] of prompts.entries()) {
          const [alone] = await decoder.generate([prompt], options([i], sampling, 1));
          const { ids, logProbs } = together[i]!;
          const same = ids.findIndex((id, step) => id !== alone!.ids[step]);
          const upTo = same === -1 ? ids.length : same;
          const [mine, theirs] = [logProbs, alone!.logProbs].map((row) => Float32Array.from(row.slice(0, upTo)));
          expect(excess(mine!, theirs!, { atol: 1e-5 })).toBeLessThanOrEqual(0);
          if (same === -1) {
            expect(textOf(together[i]!)).toEqual(textOf(alone!));
            continue;
          }
          const logits = await uncachedLogits(uncached, [...prompt, ...ids.slice(0, same)]);
          const probabilities = filteredProbabilities(logits.at(-1)!, sampling);
          const random = stream(5, i);
          const uniform = Array.from({ length: same + 1 }, () => random.uniform()).at(-1)!;
          for (const token of [ids[same]!, alone!.ids[same]!]) {
            expect(distanceTo(probabilities, token, uniform)).toBeLessThanOrEqual(1e-5);
          }
        }
      }),
      { numRuns: 12 },
    );
    await decoder.dispose();
    await uncached.dispose();
  });

  it('gives each text as it ends, and frees what it holds when nobody wants the rest', async () => {
    const decoder = await Decoder.create(runtime, policy.model);
    const prompts = [[5], [6, 7], [5], [8, 9, 10], [11]];
    const asked = options([...prompts.keys()], { ...unfiltered, temperature: 1.3 }, 2);
    const all = await decoder.generate(prompts, asked);
    const seen: number[] = [];
    for await (const { prompt, ...text } of decoder.stream(prompts, asked)) {
      expect(text).toEqual(all[prompt]);
      seen.push(prompt);
      if (seen.length === 3) break;
    }
    expect(new Set(seen).size).toBe(3);
    expect(await decoder.generate(prompts, asked)).toEqual(all);
    await decoder.dispose();
  });

  /** Logits of every position of one sequence, without a cache. */
  async function uncachedProgram(): Promise<Program> {
    const context = new ModelContext(newGraph(), { lora: policy.model.lora! });
    const { hidden } = causalHidden(context, TINY, packedTokens(context));
    context.graph.output('logits', causalLogits(context, TINY, hidden));
    return runtime.compile(context.graph, policy.folder.weights);
  }

  async function uncachedLogits(program: Program, ids: readonly number[]): Promise<Float32Array[]> {
    const { logits } = await program.run({ ...packedFeeds([ids]), ...policy.adapter });
    return rowsOf(logits!);
  }

  const rowsOf = ({ data }: Tensor): Float32Array[] =>
    Array.from({ length: data.length / TINY.vocabSize }, (_, i) =>
      (data as Float32Array).slice(i * TINY.vocabSize, (i + 1) * TINY.vocabSize),
    );

  it('takes the likeliest token of a full forward pass at every step', async () => {
    const decoder = await Decoder.create(runtime, policy.model);
    const uncached = await uncachedProgram();
    await fc.assert(
      fc.asyncProperty(fc.array(tokenIds(1, 30), { minLength: 1, maxLength: 4 }), async (prompts) => {
        const texts = await decoder.generate(prompts, options([...prompts.keys()], greedy, 4));
        for (const [i, { ids }] of texts.entries()) {
          const logits = await uncachedLogits(uncached, [...prompts[i]!, ...ids]);
          for (const [step, id] of ids.entries()) {
            const row = logits[prompts[i]!.length - 1 + step]!;
            expect(Math.max(...row) - row[id]!).toBeLessThanOrEqual(1e-5);
          }
        }
      }),
      { numRuns: 15 },
    );
    await decoder.dispose();
    await uncached.dispose();
  });

  /** Logits at the last token of the prompt and at each one after it, over a cache. */
  async function cachedLogits(program: Program, ids: readonly number[], promptLength: number): Promise<Float32Array[]> {
    const capacity = 64;
    const { numKeyValueHeads: heads, headDim } = TINY;
    const names = [...Array(TINY.numHiddenLayers).keys()].flatMap((layer) =>
      (['key', 'value'] as const).map((which) => [pastName(layer, which), freshName(layer, which)] as const),
    );
    const past = Object.fromEntries(names.map(([name]) => [name, zeros('float32', [1, heads, capacity, headDim])]));
    const rows: Float32Array[] = [];
    for (let [start, end] = [0, promptLength]; end <= ids.length; [start, end] = [end, end + 1]) {
      const length = end - start;
      const results = await program.run({
        input_ids: tensor('int32', [1, length], ids.slice(start, end)),
        past_length: tensor('int32', [1], [start]),
        output_index: tensor('int32', [1], [length - 1]),
        ...past,
        ...policy.adapter,
      });
      for (const [before, fresh] of names) {
        const data = results[fresh]!.data as Float32Array;
        for (let head = 0; head < heads; head++) {
          const added = data.subarray(head * length * headDim, (head + 1) * length * headDim);
          past[before]!.data.set(added, (head * capacity + start) * headDim);
        }
      }
      rows.push(...rowsOf(results['logits']!));
    }
    return rows;
  }

  it('over a cache gives the logits and log-probabilities of a full forward pass', async () => {
    const context = new ModelContext(newGraph(), { lora: policy.model.lora! });
    context.graph.output('logits', causalLogits(context, TINY, causalDecoder(context, TINY)));
    const cached = await runtime.compile(context.graph, policy.folder.weights);
    const uncached = await uncachedProgram();
    const scorer = await Scorer.create(runtime, policy.model);
    await fc.assert(
      fc.asyncProperty(tokenIds(1, 24), tokenIds(1, 8), async (prompt, completion) => {
        const ids = [...prompt, ...completion];
        const rows = await cachedLogits(cached, ids, prompt.length);
        const expected = (await uncachedLogits(uncached, ids)).slice(prompt.length - 1);
        expect(rows).toHaveLength(completion.length + 1);
        for (const [i, row] of rows.entries()) expect(excess(row, expected[i]!, { atol: 1e-5 })).toBeLessThanOrEqual(0);

        const completionMask = ids.map((_, i) => (i < prompt.length ? 0 : 1));
        const [logprobs] = await scorer.logProbabilities([{ inputIds: ids, completionMask }], {
          temperature: 1,
          batchSize: 1,
          adapter: policy.adapter!,
        });
        const fromCache = completion.map((id, i) => rows[i]![id]! - logSumExp(rows[i]!));
        expect(excess(logprobs!, fromCache, { atol: 1e-5 })).toBeLessThanOrEqual(0);
      }),
      { numRuns: 15 },
    );
    for (const each of [cached, uncached, scorer]) await each.dispose();
  });
});

function logSumExp(values: Float32Array): number {
  const highest = Math.max(...values);
  return highest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - highest), 0));
}
