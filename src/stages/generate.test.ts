import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { writeTinyClassifier } from '../../tests/support/tiny-encoder.js';
import { TINY, writeTinyAdapter, writeTinyModel } from '../../tests/support/tiny-model.js';
import { golden } from '../../tests/support/golden.js';
import { loadConfig } from '../config/load.js';
import type { GenerateInput, GenerateOutput } from '../config/records.js';
import { UserError } from '../errors.js';
import { RewardModel } from '../rewards/reward-model.js';
import type { StageEvent } from '../runs/events.js';
import { Runtime } from '../runtime/runtime.js';
import { loadTokenizer } from '../text/load-tokenizer.js';
import { generate } from './generate.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duanzi-generate-'));
  await writeTinyModel(join(folder, 'model'));
  await writeTinyAdapter(join(folder, 'adapter'));
  await writeTinyClassifier(join(folder, 'rm'));
});
afterAll(() => rm(folder, { recursive: true }));

const events: StageEvent[] = [];
async function write(inputs: readonly GenerateInput[], flags: Record<string, unknown> = {}): Promise<GenerateOutput[]> {
  const all = {
    model: join(folder, 'model'),
    threads: 1,
    'generate.maxNewTokens': 8,
    'generate.temperature': 1,
    'data.templates.headline': '标题：{headline}\n',
    'data.templates.words': '词语：{word1}、{word2}\n',
    'data.templates.all': '{headline}{word1}{word2}',
    ...flags,
  };
  events.length = 0;
  const config = await loadConfig({ stage: 'generate', flags: all });
  const texts: GenerateOutput[] = [];
  for await (const text of generate(config, inputs, { onEvent: (event) => events.push(event) })) texts.push(text);
  return texts;
}

const PROMPTS: readonly GenerateInput[] = ['猫', '排队买包子', '雨伞遇见键盘，都笑了', '今天'].map((prompt) => ({
  prompt,
}));

async function faultOf(work: Promise<unknown>): Promise<UserError> {
  const thrown: unknown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (thrown instanceof UserError) return thrown;
  throw new Error(`expected a UserError, got ${String(thrown)}`);
}

describe('prompts', () => {
  it('come from the template that asks for what is given, or stand as they are', async () => {
    const inputs = [{ headline: '猫排队' }, { words: ['雨伞', '键盘'] }, { prompt: '今天' }] satisfies GenerateInput[];
    const flags = { 'data.columns.headline': 'title', 'data.templates.headline': '标题：{title}\n' };
    const texts = await write(inputs, flags);
    expect(texts.map(({ prompt }) => prompt)).toEqual(['标题：猫排队\n', '词语：雨伞、键盘\n', '今天']);
  });

  it('of token ids have their text where there is a tokenizer', async () => {
    const tokenizer = await loadTokenizer(join(folder, 'model'));
    const inputIds = tokenizer.encode('猫排队');
    const [fromIds, fromText] = await write([{ inputIds }, { prompt: '猫排队' }], { 'generate.temperature': 0 });
    expect(fromIds).toEqual(fromText);
    const { completion, completionIds } = fromText!;
    expect(completion).toBe(tokenizer.decode(completionIds, { skipSpecialTokens: true }));
  });

  it.each([
    ['too long for the model', { inputIds: Array<number>(TINY.maxPositionEmbeddings - 7).fill(1) }, 'input.too-long'],
    ['with an id that the model has not', { inputIds: [1, TINY.vocabSize] }, 'input.unknown-id'],
  ])('%s are refused before anything is written', async (_, input, code) => {
    expect(await faultOf(write([PROMPTS[0]!, input]))).toMatchObject({ code, where: 'input 2', exitCode: 2 });
    expect(events).toEqual([]);
  });

  it('are refused where no template asks for what is given', async () => {
    const fault = await faultOf(write([{ headline: '猫' }], { 'data.templates.headline': '{headline}{word1}' }));
    expect(fault).toMatchObject({ code: 'template.none-fits', where: 'data.templates' });
  });

  it('are refused as text where the model has no tokenizer', async () => {
    const fault = await faultOf(write([PROMPTS[0]!], { model: golden('qwen3/model') }));
    expect(fault).toMatchObject({ code: 'tokenizer.missing-file', where: golden('qwen3/model') });
  });
});

describe('texts', () => {
  it('repeat with their seed whatever is written beside them, and differ with another; progress is told', async () => {
    const texts = await write([...PROMPTS, ...PROMPTS], { seed: 3 });
    expect(await write(PROMPTS, { seed: 3, 'generate.batchSize': 3 })).toEqual(texts.slice(0, 4));
    expect(texts.slice(4)).not.toEqual(texts.slice(0, 4));
    expect(await write(PROMPTS, { seed: 4 })).not.toEqual(texts.slice(0, 4));

    const progress = events.flatMap((event) => (event.type === 'progress' ? [event] : []));
    expect(progress.at(-1)).toMatchObject({ task: 'generate', done: 4, total: 4 });
    const done = progress.map((event) => event.done);
    expect(done).toEqual([...done].sort((a, b) => a - b));
  });

  it('at temperature 0 need no seed, and an adapter changes them', async () => {
    const greedy = { 'generate.temperature': 0, 'generate.ignoreEos': true };
    const texts = await write(PROMPTS, { ...greedy, seed: 1 });
    expect(await write(PROMPTS, { ...greedy, seed: 2 })).toEqual(texts);
    expect(texts.every(({ completionIds }) => completionIds.length === 8)).toBe(true);
    expect(texts.every(({ finishReason }) => finishReason === 'length')).toBe(true);
    expect(await write(PROMPTS, { ...greedy, adapter: join(folder, 'adapter') })).not.toEqual(texts);
  });

  it.each(['int8', 'int4', 'nf4'])('on a base in %s repeat too, and its files are made once', async (quantization) => {
    vi.stubEnv('DUANZI_CACHE', join(folder, 'cache'));
    const flags = { quantization, adapter: join(folder, 'adapter'), seed: 3 };
    const texts = await write(PROMPTS, flags);
    expect(texts).toHaveLength(PROMPTS.length);
    const [file] = await readdir(join(folder, 'cache', quantization));
    const { mtimeMs } = await stat(join(folder, 'cache', quantization, file!));
    expect(await write(PROMPTS, { ...flags, 'generate.batchSize': 2 })).toEqual(texts);
    expect((await stat(join(folder, 'cache', quantization, file!))).mtimeMs).toBe(mtimeMs);
    vi.unstubAllEnvs();
  });

  it('stop when asked to', async () => {
    const config = await loadConfig({
      stage: 'generate',
      flags: { model: join(folder, 'model'), 'generate.batchSize': 1, 'generate.maxNewTokens': 4 },
    });
    const controller = new AbortController();
    const texts = generate(config, PROMPTS, { onEvent: () => undefined, signal: controller.signal });
    expect((await texts.next()).done).toBe(false);
    controller.abort();
    await expect(texts.next()).rejects.toThrow(/aborted/);
  });
});

describe('with a reward model', () => {
  it('each text has its reward, and the best of several is given', async () => {
    const flags = { rm: join(folder, 'rm'), 'generate.temperature': 2, seed: 5 };
    const single = await write(PROMPTS, flags);
    const best = await write(PROMPTS, { ...flags, 'generate.bestOf': 6, 'generate.batchSize': 4 });

    const runtime = new Runtime({ threads: 1 });
    const rewardModel = await RewardModel.open(runtime, flags.rm);
    const pairs = best.map(({ prompt, completion }) => ({ prompt: prompt!, completion: completion! }));
    const rewards = await rewardModel.score(pairs, { batchSize: 1 });
    await runtime.close();
    for (const [i, { reward }] of best.entries()) {
      expect(Math.abs(reward! - rewards[i]!)).toBeLessThanOrEqual(1e-5);
      // The single text is the first of the candidates.
      expect(reward).toBeGreaterThanOrEqual(single[i]!.reward! - 1e-5);
    }
    expect(best).not.toEqual(single);
  });

  it('a model without a tokenizer is refused', async () => {
    const flags = { model: golden('qwen3/model'), rm: join(folder, 'rm') };
    const fault = await faultOf(write([{ inputIds: [5] }], flags));
    expect(fault).toMatchObject({ code: 'tokenizer.missing-file', where: flags.model });
  });
});
