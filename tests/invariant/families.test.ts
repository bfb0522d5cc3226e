import { mkdtemp, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { loadConfig } from '../../src/config/load.js';
import { Decoder } from '../../src/generation/decoder.js';
import { openPolicy, type Policy } from '../../src/generation/policy.js';
import { unfiltered } from '../../src/generation/sampling-settings.js';
import { Scorer } from '../../src/generation/scorer.js';
import type { Tensor } from '../../src/graph/tensor.js';
import { causalHidden, causalLogits } from '../../src/models/causal.js';
import type { ModelConfig } from '../../src/models/config/model-config.js';
import { packedFeeds, packedTokens, type MaskedSequence } from '../../src/models/packed-tokens.js';
import { ModelContext } from '../../src/nn/context.js';
import { newGraph } from '../../src/ops/registry.js';
import { stream } from '../../src/random.js';
import { RewardModel } from '../../src/rewards/reward-model.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { pretrain } from '../../src/stages/pretrain.js';
import { rm } from '../../src/stages/rm.js';
import { sftStep } from '../../src/stages/sft.js';
import { causalGraph } from '../../src/training/language.js';
import { Learner } from '../../src/training/learner.js';
import { mergedPolicy } from '../../src/training/merged-policy.js';
import { TINY_BERT, TINY_ROBERTA, writeTinyEncoder } from '../support/tiny-encoder.js';
import { TINY_FAMILIES, tinyWeights, writeTinyAdapter, writeTinyModel } from '../support/tiny-model.js';

/* What holds for one family of models must hold for all. */

const runtime = new Runtime({ threads: 1 });
const root = await mkdtemp(join(tmpdir(), 'duanzi-families-'));
const at = (...names: string[]): string => join(root, ...names);
afterAll(async () => {
  await runtime.close();
  await remove(root, { recursive: true });
});

const silent = { onEvent: () => undefined };

describe.each(Object.keys(TINY_FAMILIES))('%s', (family) => {
  const config = TINY_FAMILIES[family]!;
  let policy: Policy;
  beforeAll(async () => {
    await writeTinyModel(at(family, 'model'), config);
    await writeTinyAdapter(at(family, 'adapter'), config);
    policy = await openPolicy(at(family, 'model'), at(family, 'adapter'));
  });

  it('over a cache writes and weighs tokens as a full forward pass does', async () => {
    const decoder = await Decoder.create(runtime, policy.model);
    const scorer = await Scorer.create(runtime, policy.model);
    const prompts = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15]];
    const completions = await decoder.generate(prompts, {
      maxNewTokens: 40,
      sampling: { ...unfiltered, temperature: 0 },
      eosTokenIds: new Set([config.eosTokenIds[0]!]),
      padTokenId: policy.padTokenId,
      batchSize: 3,
      random: () => stream(0),
      adapter: policy.adapter!,
    });
    const context = new ModelContext(newGraph(), { lora: policy.model.lora! });
    const { hidden } = causalHidden(context, config, packedTokens(context));
    context.graph.output('logits', causalLogits(context, config, hidden));
    const uncached = await runtime.compile(context.graph, policy.folder.weights);
    for (const [i, { ids }] of completions.entries()) {
      const inputIds = [...prompts[i]!, ...ids];
      const { logits } = await uncached.run({ ...packedFeeds([inputIds]), ...policy.adapter });
      const rows = inputIds.map((_, row) =>
        (logits!.data as Float32Array).subarray(row * config.vocabSize, (row + 1) * config.vocabSize),
      );
      const start = prompts[i]!.length;
      for (const [step, id] of ids.entries()) {
        const row = rows[start + step - 1]!;
        // The two sum in another order: a token within rounding of the likeliest is as good.
        expect(Math.max(...row) - row[id]!, `token ${step} of prompt ${i}`).toBeLessThanOrEqual(1e-4);
      }
      const completionMask = inputIds.map((_, t) => (t < start ? 0 : 1));
      const [logprobs] = await scorer.logProbabilities([{ inputIds, completionMask }], {
        temperature: 1,
        batchSize: 1,
        adapter: policy.adapter!,
      });
      for (const [step, id] of ids.entries()) {
        const row = Float64Array.from(rows[start + step - 1]!);
        const expected = row[id]! - Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0));
        expect(Math.abs(logprobs![step]! - expected)).toBeLessThanOrEqual(1e-4);
      }
    }
    for (const each of [decoder, scorer, uncached]) await each.dispose();
  });

  it('merges an adapter into what model and adapter compute apart', async () => {
    const given = { model: at(family, 'model'), adapter: at(family, 'adapter'), out: at(family, 'merged') };
    const merged = await openPolicy(await mergedPolicy(runtime, given));
    expect(merged.config).toEqual(config);
  });

  it.each(['adapter', 'all parameters'])('learns: the loss of a batch falls with each step of %s', async (which) => {
    const { graph, loss, context } = causalGraph(config, {
      ...(which === 'adapter' ? { lora: policy.model.lora! } : {}),
      statistics: true,
    });
    const learner = await Learner.create(
      runtime,
      which === 'adapter'
        ? {
            graph,
            loss,
            trainable: context.loraWeights,
            initial: new Map<string, Tensor>(Object.entries(policy.adapter!)),
            frozen: policy.folder.weights,
            adamw: { weightDecay: 0 },
          }
        : { graph, loss, trainable: context.weights, initial: tinyWeights(1, config), adamw: { weightDecay: 0 } },
    );
    const batch: MaskedSequence[] = [
      { inputIds: [5, 6, 7, 8, 9], completionMask: [0, 0, 1, 1, 1] },
      { inputIds: [9, 8, 7], completionMask: [0, 1, 1] },
    ];
    const losses: number[] = [];
    for (let step = 0; step < 4; step++) losses.push((await sftStep(learner, [batch], 1e-3, []))['loss']!);
    for (let step = 1; step < losses.length; step++) expect(losses[step]!).toBeLessThan(losses[step - 1]!);
    await learner.dispose();
  });
});

const TEXTS = ['猫买包子，今天笑了', '狗买雨伞，笑会议', '兔买键盘，今天开会', '鸡看月亮，会议开了'];
const TABLE = [
  'headline,word1,word2,joke,label',
  ...Array.from({ length: 24 }, (_, i) => `猫排队${i},猫,包子,${TEXTS[i % 4]}${i},${i % 4 < 2 ? 1 : 0}`),
].join('\n');

const bodies: Readonly<Record<string, (dir: string) => Promise<void>>> = {
  BERT: (dir) => writeTinyEncoder(dir, TINY_BERT),
  RoBERTa: (dir) => writeTinyEncoder(dir, TINY_ROBERTA),
  Qwen3: (dir) => writeTinyModel(dir),
  'Llama 3': (dir) => writeTinyModel(dir, TINY_FAMILIES['Llama 3']),
};

describe.each(Object.keys(bodies))('a reward model of %s', (name) => {
  const out = at(`rm ${name}`);
  beforeAll(async () => {
    await writeFile(at('rows.csv'), TABLE);
    await bodies[name]!(at(`body ${name}`));
    const flags = {
      model: at(`body ${name}`),
      out,
      'data.file': at('rows.csv'),
      'data.templates.headline': '标题：{headline}，',
      'rm.maxLength': 56,
      'rm.epochs': 3,
      'rm.learningRate': 0.005,
      'rm.dropout': 0.05,
      'rm.baselines': false,
      'rm.loggingSteps': 1,
      threads: 1,
    };
    await rm(await loadConfig({ stage: 'rm', flags }), silent);
  });

  it('learns with R-Drop: the cross entropy falls', () => {
    const logged = readMetrics(join(out, 'metrics.jsonl')).filter(({ values }) => 'loss' in values);
    const [first, last] = [logged[0]!.values, logged.at(-1)!.values];
    expect(first['rdrop_kl']).toBeGreaterThan(0);
    expect(last['ce']).toBeLessThan(first['ce']!);
  });

  it('is read as one, whatever shares its batch', async () => {
    const model = await RewardModel.open(runtime, join(out, 'model'));
    const texts = ['标题：猫，笑了', '标题：猫排队买包子，今天开会'];
    const together = await model.logits(texts, { batchSize: 2 });
    const alone = await model.logits(texts, { batchSize: 1 });
    expect(together[0]).toHaveLength(2);
    for (const [i, row] of together.entries()) {
      for (const [label, logit] of row.entries()) expect(logit).toBeCloseTo(alone[i]![label]!, 4);
    }
    await model.dispose();
  });
});

it.each<[string, ModelConfig]>([
  ['BERT', TINY_BERT],
  ['RoBERTa', TINY_ROBERTA],
])('%s goes on learning masked tokens', async (name, config) => {
  if (config.kind !== 'encoder') throw new Error('no encoder');
  await writeTinyEncoder(at(`masked ${name}`), config);
  await writeFile(at('rows.csv'), TABLE);
  const flags = {
    model: at(`masked ${name}`),
    out: at(`pretrain ${name}`),
    'data.file': at('rows.csv'),
    'data.templates.headline': '标题：{headline}，',
    'pretrain.objective': 'masked',
    'pretrain.maxSteps': 3,
    'pretrain.batchSize': 4,
    'pretrain.loggingSteps': 1,
    threads: 1,
  };
  const out = await pretrain(await loadConfig({ stage: 'pretrain', flags }), silent);
  const [before, after] = await Promise.all(
    [at(`masked ${name}`), join(out, 'model')].map((dir) => openModelFolder(dir)),
  );
  expect([...after!.weights.keys()].sort()).toEqual([...before!.weights.keys()].sort());
  const losses = readMetrics(join(out, 'metrics.jsonl')).flatMap(({ values }) => values['loss'] ?? []);
  expect(losses).toHaveLength(3);
  expect(losses.every((loss) => loss > 0 && loss < 100)).toBe(true);
});
