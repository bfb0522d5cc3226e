import fc from 'fast-check';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { excess, golden, goldenTensors, take } from '../../tests/support/golden.js';
import { TINY_CLASSIFIER, writeTinyClassifier, writeTinyEncoder } from '../../tests/support/tiny-encoder.js';
import { Runtime } from '../runtime/runtime.js';
import { recordMaxLength } from '../text/max-length.js';
import { humorousProbability, RewardModel, textLimit } from './reward-model.js';

const runtime = new Runtime({ threads: 1 });
let root: string;
let model: RewardModel;
const folder = (name: string): string => join(root, name);
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'duanzi-rewards-'));
  await writeTinyClassifier(folder('classifier'));
  await recordMaxLength(folder('classifier'), 20);
  model = await RewardModel.open(runtime, folder('classifier'));
});
afterAll(async () => {
  await runtime.close();
  await rm(root, { recursive: true });
});

const sequence = fc.array(fc.integer({ min: 1, max: TINY_CLASSIFIER.vocabSize - 1 }), { minLength: 1, maxLength: 40 });

describe('logits', () => {
  it('do not depend on the texts beside them nor on padding', async () => {
    const property = fc.asyncProperty(
      fc.array(sequence, { minLength: 1, maxLength: 7 }),
      fc.integer({ min: 1, max: 8 }),
      async (sequences, batchSize) => {
        const together = await model.logitsOfIds(sequences, { batchSize });
        for (const [i, ids] of sequences.entries()) {
          const [alone] = await model.logitsOfIds([ids], { batchSize: 1 });
          expect(excess(together[i]!, alone!, { atol: 1e-5 })).toBeLessThanOrEqual(0);
        }
      },
    );
    await fc.assert(property, { numRuns: 25 });
  });

  it('of token ids are the recorded ones', async () => {
    const recorded = await goldenTensors('deberta/batch.safetensors');
    const mask = take(recorded, 'attention_mask');
    const [rows, length] = mask.shape as [number, number];
    const ids = Array.from({ length: rows }, (_, row) => {
      const places = Array.from({ length }, (_unused, column) => row * length + column);
      return places.filter((at) => mask.data[at] === 1).map((at) => take(recorded, 'input_ids').data[at]!);
    });
    const classifier = await RewardModel.open(runtime, golden('deberta/model'));
    const logits = await classifier.logitsOfIds(ids, { batchSize: 3 });
    expect(excess(logits.flat(), take(recorded, 'logits').data, { atol: 1e-4 })).toBeLessThanOrEqual(0);
    await classifier.dispose();
  });

  it('of a text are those of its ids, and the reward is the logit of "humorous"', async () => {
    const pairs = [
      { prompt: '标题：猫', completion: '笑了' },
      { prompt: '标题：狗', completion: '会议今天开了。' },
    ];
    const texts = pairs.map(({ prompt, completion }) => prompt + completion);
    const options = { batchSize: 4 };
    const logits = await model.logits(texts, options);
    expect(
      await model.logitsOfIds(
        texts.map((text) => model.encode(text)),
        options,
      ),
    ).toEqual(logits);
    expect(await model.score(pairs, options)).toEqual(logits.map((row) => row[1]));
    expect(await model.logits([], options)).toEqual([]);
  });

  it('report how many are done', async () => {
    const seen: number[] = [];
    await model.logits(['猫', '狗', '兔'], { batchSize: 2, onProgress: (done) => seen.push(done) });
    expect(seen).toEqual([2, 3]);
  });
});

describe('encode', () => {
  it('puts one text between [CLS] and [SEP] and cuts its end to the recorded length', () => {
    expect(model.maxLength).toBe(20);
    expect(model.encode('猫').length).toBe(3);
    const ids = model.encode('猫'.repeat(50));
    expect(ids).toHaveLength(20);
    expect([ids[0], ids.at(-1)]).toEqual([model.tokenizer?.special.cls, model.tokenizer?.special.sep]);
  });

  it('cuts to the positions of the model where nobody said another length', () => {
    const absolute = { ...TINY_CLASSIFIER, positionBiasedInput: true };
    expect(textLimit(TINY_CLASSIFIER)).toBe(64);
    expect(textLimit(TINY_CLASSIFIER, 100)).toBe(100);
    expect(textLimit(absolute, 100)).toBe(64);
    expect(textLimit(absolute, 30)).toBe(30);
  });
});

describe('in 8 bits', () => {
  it('rates what float32 rates, within some hundredths', async () => {
    const rounded = await RewardModel.open(runtime, folder('classifier'), { precision: 'int8' });
    const sequences = Array.from({ length: 8 }, (_, i) => [
      2,
      ...Array.from({ length: 6 + i }, (_x, j) => 10 + 3 * i + j),
      3,
    ]);
    const [exact, rough] = [
      (await model.logitsOfIds(sequences, { batchSize: 8 })).flat(),
      (await rounded.logitsOfIds(sequences, { batchSize: 8 })).flat(),
    ];
    const apart = exact.map((value, i) => Math.abs(value - rough[i]!));
    expect(Math.max(...apart)).toBeGreaterThan(0);
    expect(Math.max(...apart)).toBeLessThan(0.03 * Math.max(...exact.map(Math.abs)));
    const alone = await rounded.logitsOfIds([sequences[3]!], { batchSize: 1 });
    expect(alone[0]![0]).toBeCloseTo(rough[6]!, 4);
    await rounded.dispose();
  });
});

describe('open', () => {
  it('takes ids alone where there is no tokenizer', async () => {
    await writeTinyClassifier(folder('bare'), { tokenizer: false });
    const bare = await RewardModel.open(runtime, folder('bare'));
    const ids = [2, 40, 41, 3];
    expect(await bare.logitsOfIds([ids], { batchSize: 1 })).toEqual(await model.logitsOfIds([ids], { batchSize: 1 }));
    await expect(bare.logits(['猫'], { batchSize: 1 })).rejects.toMatchObject({ code: 'tokenizer.missing-file' });
    await bare.dispose();
  });

  it.each([
    { name: 'an encoder without a head', code: 'model.not-classifier', make: writeTinyEncoder },
    {
      name: 'three labels',
      code: 'model.labels',
      make: (dir: string) => writeTinyClassifier(dir, { changes: { labels: ['a', 'b', 'c'] } }),
    },
    {
      name: 'a tokenizer with more entries than embeddings',
      code: 'tokenizer.does-not-fit',
      make: (dir: string) => writeTinyClassifier(dir, { changes: { vocabSize: 100 } }),
    },
    {
      name: 'a config of other sizes',
      code: 'checkpoint.wrong-shape',
      make: async (dir: string) => {
        await writeTinyClassifier(dir);
        const config = await readFile(join(dir, 'config.json'), 'utf8');
        await writeFile(join(dir, 'config.json'), config.replace('"intermediate_size": 32', '"intermediate_size": 48'));
      },
    },
    {
      name: 'a config of more layers',
      code: 'checkpoint.missing-tensor',
      make: async (dir: string) => {
        await writeTinyClassifier(dir);
        const config = await readFile(join(dir, 'config.json'), 'utf8');
        await writeFile(join(dir, 'config.json'), config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'));
      },
    },
  ])('refuses $name', async ({ name, code, make }) => {
    await make(folder(name));
    await expect(RewardModel.open(runtime, folder(name))).rejects.toMatchObject({ code, exitCode: 2 });
  });

  it('refuses ids that the model cannot take', async () => {
    const refused = (ids: number[]) => expect(model.logitsOfIds([[2, 3], ids], { batchSize: 2 })).rejects;
    await refused([]).toMatchObject({ code: 'input.no-tokens', where: 'text 2' });
    await refused([TINY_CLASSIFIER.vocabSize]).toMatchObject({ code: 'input.unknown-id', where: 'text 2' });
  });
});

it('turns logits into a probability', () => {
  expect(humorousProbability([0, 0])).toBe(0.5);
  expect(humorousProbability([0, Math.log(3)])).toBeCloseTo(0.75, 12);
  expect(humorousProbability([1000, -1000])).toBe(0);
  expect(humorousProbability([-1000, 1000])).toBe(1);
});
