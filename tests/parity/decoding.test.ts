import { afterAll, describe, expect, it } from 'vitest';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { readFloats, readHeader } from '../../src/checkpoints/safetensors.js';
import { Decoder, type CausalModel, type DecodeOptions } from '../../src/generation/decoder.js';
import { unfiltered } from '../../src/generation/sampling-settings.js';
import { Scorer } from '../../src/generation/scorer.js';
import type { Tensor } from '../../src/graph/tensor.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

async function model(): Promise<CausalModel> {
  const { config, weights } = await openModelFolder(golden('qwen3/model'));
  if (config.kind !== 'causal') throw new Error('the recording is no Qwen3');
  return { config, weights };
}

const lora = {
  r: 4,
  alpha: 8,
  dropout: 0,
  targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
};

async function adapter(): Promise<Record<string, Tensor>> {
  const { tensors } = await readHeader(golden('lora/adapter/adapter_model.safetensors'));
  const named = [...tensors.values()].map(async (info) => [info.name, await readFloats(info)] as const);
  return Object.fromEntries(await Promise.all(named));
}

const greedy = (maxNewTokens: number, batchSize: number): DecodeOptions => ({
  maxNewTokens,
  sampling: { ...unfiltered, temperature: 0 },
  eosTokenIds: new Set(),
  padTokenId: 0,
  batchSize,
  random: () => stream(0),
});

const recorded = goldenJson('qwen3/greedy/greedy.json') as {
  prompts: number[][];
  continuation: number[][];
  max_new_tokens: number;
};

describe('greedy decoding', () => {
  it.each([1, 2, 3])('writes the recorded ids with %i prompts at a time', async (batchSize) => {
    const decoder = await Decoder.create(runtime, await model());
    const completions = await decoder.generate(recorded.prompts, greedy(recorded.max_new_tokens, batchSize));
    expect(completions.map(({ ids }) => ids)).toEqual(recorded.continuation);
    expect(completions.every(({ finishReason }) => finishReason === 'length')).toBe(true);
    await decoder.dispose();
  });

  it('goes on rightly for the other rows when some have ended and the batch shrinks', async () => {
    const decoder = await Decoder.create(runtime, await model());
    const prompts = [...recorded.prompts, ...recorded.prompts];
    const eosTokenIds = new Set([recorded.continuation[0]![3]!, recorded.continuation[1]![6]!]);
    const completions = await decoder.generate(prompts, { ...greedy(recorded.max_new_tokens, 6), eosTokenIds });
    const expected = [...recorded.continuation, ...recorded.continuation].map((ids) => {
      const end = ids.findIndex((id) => eosTokenIds.has(id));
      return end < 0 ? { ids, finishReason: 'length' } : { ids: ids.slice(0, end + 1), finishReason: 'stop' };
    });
    expect(completions.map(({ ids, finishReason }) => ({ ids, finishReason }))).toEqual(expected);
    await decoder.dispose();
  });
});

describe('cached and uncached', () => {
  it('agree on the log-probability of every token that was sampled with an adapter', async () => {
    const adapted = { ...(await model()), lora };
    const weights = await adapter();
    const decoder = await Decoder.create(runtime, adapted);
    const scorer = await Scorer.create(runtime, adapted);
    const settings = { ...unfiltered, temperature: 0.8 };
    const completions = await decoder.generate(recorded.prompts, {
      ...greedy(24, 3),
      sampling: settings,
      random: (prompt) => stream(7, prompt),
      adapter: weights,
    });
    const logprobs = await scorer.logProbabilities(
      completions.map(({ ids }, i) => ({
        inputIds: [...recorded.prompts[i]!, ...ids],
        completionMask: [...recorded.prompts[i]!.map(() => 0 as const), ...ids.map(() => 1 as const)],
      })),
      { temperature: 0.8, batchSize: 2, adapter: weights },
    );
    expect(logprobs.map(({ length }) => length)).toEqual(completions.map(({ ids }) => ids.length));
    for (const [i, { logProbs }] of completions.entries()) {
      expect(excess(Float32Array.from(logProbs), logprobs[i]!, { atol: 1e-5 })).toBeLessThanOrEqual(0);
    }

    // The same random streams, one prompt at a time: the batch does not change what is written.
    const alone = await decoder.generate(recorded.prompts, {
      ...greedy(24, 1),
      sampling: settings,
      random: (prompt) => stream(7, prompt),
      adapter: weights,
    });
    expect(alone.map(({ ids }) => ids)).toEqual(completions.map(({ ids }) => ids));
    await decoder.dispose();
    await scorer.dispose();
  });
});

describe('scoring', () => {
  it('gives the recorded log-probabilities', async () => {
    const batch = await goldenTensors('qwen3/batch.safetensors');
    const [ids, mask, logprobs] = ['input_ids', 'attention_mask', 'logprobs'].map((name) => take(batch, name));
    const [rows, length] = ids!.shape as [number, number];
    const sequences = Array.from({ length: rows }, (_, row) => {
      const real = [...mask!.data.subarray(row * length, (row + 1) * length)].filter((bit) => bit === 1).length;
      const inputIds = [...ids!.data.subarray(row * length, row * length + real)];
      return { inputIds, completionMask: inputIds.map(() => 1 as const) };
    });
    const scorer = await Scorer.create(runtime, await model());
    const scored = await scorer.logProbabilities(sequences, { temperature: 1, batchSize: 2 });
    for (const [row, values] of scored.entries()) {
      const expected = logprobs!.data.subarray(row * (length - 1), row * (length - 1) + values.length);
      expect(excess(values, expected, { atol: 1e-4 })).toBeLessThanOrEqual(0);
    }
    await scorer.dispose();
  });
});
