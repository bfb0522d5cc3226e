import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import type { GenerateOutput, ScoreOutput } from '../../src/config/records.js';
import { checkData } from '../../src/data/check.js';
import { loadDataFile } from '../../src/data/folder.js';
import { UserError } from '../../src/errors.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { generate } from '../../src/stages/generate.js';
import { grpo } from '../../src/stages/grpo.js';
import { score } from '../../src/stages/score.js';
import { sft } from '../../src/stages/sft.js';
import { serializeTokenizer } from '../../src/text/tokenizer-files.js';
import { trainByteLevelBpe } from '../../src/text/train-bpe.js';
import { writeTinyClassifier } from '../support/tiny-encoder.js';
import { TINY, writeTinyModel } from '../support/tiny-model.js';

/* Rows that are conversations go through the model's chat template, in every stage that gives a model texts. */

const root = await mkdtemp(join(tmpdir(), 'duanzi-messages-'));
const at = (...names: string[]): string => join(root, ...names);
afterAll(() => rm(root, { recursive: true }));
const silent = { onEvent: () => undefined };

const ASKED = '<|im_start|>user\n猫排队？<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n';
const line = (number: number): string =>
  JSON.stringify({
    messages: [
      { role: 'user', content: `猫排队${number}？` },
      { role: 'assistant', content: `包子${number}，笑了。` },
    ],
  });

beforeAll(async () => {
  await writeTinyModel(at('chat'), { ...TINY, maxPositionEmbeddings: 512 });
  const files = trainByteLevelBpe(['猫排队买包子', '猫排队买包子，笑了'], {
    vocabSize: TINY.vocabSize,
    specialTokens: ['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
    eosToken: '<|im_end|>',
    padToken: '<|endoftext|>',
  });
  for (const [name, content] of Object.entries(serializeTokenizer(files))) await writeFile(at('chat', name), content);
  await cp(at('chat'), at('plain'), { recursive: true });
  const template = new URL('../fixtures/chat/thinking.jinja', import.meta.url);
  await writeFile(at('chat', 'chat_template.jinja'), await readFile(template));
  await writeTinyClassifier(at('judge'));
  await writeFile(at('rows.jsonl'), Array.from({ length: 12 }, (_, i) => line(i)).join('\n'));
});

const data = { 'data.file': at('rows.jsonl'), 'data.validationFraction': 0.2, threads: 1 };

async function all<T>(results: AsyncGenerator<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const result of results) list.push(result);
  return list;
}

const sftConfig = (model: string, out: string) =>
  loadConfig({
    stage: 'sft',
    flags: {
      ...data,
      model: at(model),
      out: at(out),
      'sft.maxLength': 200,
      'sft.maxSteps': 3,
      'sft.batchSize': 2,
      'sft.gradientAccumulationSteps': 1,
      'sft.loggingSteps': 1,
      'sft.learningRate': 0.01,
      'sft.samples': 1,
      'lora.dropout': 0,
    },
  });

it('are described without any prompt template', async () => {
  const file = await loadDataFile(at('rows.jsonl'), 'optional');
  expect(file.rows[3]).toMatchObject({ line: 4, fields: { headline: '猫排队3？', completion: '包子3，笑了。' } });
  const folder = { dir: root, files: { sft_train: file } };
  const { files } = checkData(folder, { headline: '标题：{headline}' }, { seed: 0, validationFraction: 0.2 });
  expect(files[0]).toMatchObject({ rows: 12, prompts: 12, headlines: 12 });
});

describe('sft', () => {
  it('learns the last turn of each', async () => {
    const out = await sft(await sftConfig('chat', 'sft'), silent);
    const losses = readMetrics(join(out, 'metrics.jsonl')).flatMap(({ values }) => values['loss'] ?? []);
    expect(losses).toHaveLength(3);
    expect(losses.at(-1)).toBeLessThan(losses[0]!);
  });

  it('refuses them for a model without a chat template, by line, before it writes', async () => {
    const refusal = await sft(await sftConfig('plain', 'refused'), silent).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(UserError);
    expect(refusal).toMatchObject({ code: 'chat.no-template', exitCode: 2 });
    expect((refusal as UserError).where).toMatch(/rows\.jsonl:\d+$/u);
    await expect(readFile(at('refused', 'manifest.json'))).rejects.toThrow();
  });
});

it('grpo writes to them, and rewards read plain words', async () => {
  const config = await loadConfig({
    stage: 'grpo',
    flags: {
      ...data,
      model: at('chat'),
      rm: at('judge'),
      out: at('grpo'),
      'grpo.numGenerations': 2,
      'grpo.completionsPerRollout': 4,
      'grpo.batchSize': 4,
      'grpo.maxSteps': 1,
      'grpo.maxPromptLength': 200,
      'grpo.maxCompletionLength': 6,
      'grpo.evalPrompts': 0,
      'lora.dropout': 0,
    },
  });
  const out = await grpo(config, silent);
  const records = (await readFile(join(out, 'rollouts.jsonl'), 'utf8')).trim().split('\n');
  expect(records).toHaveLength(4);
  for (const record of records) {
    const { template, prompt, reward } = JSON.parse(record) as { template: string; prompt: string; reward: number };
    expect(template).toBe('messages');
    expect(prompt).toMatch(
      /^<\|im_start\|>user\n猫排队\d+？<\|im_end\|>\n<\|im_start\|>assistant\n<think>\n\n<\/think>\n\n$/u,
    );
    expect(Number.isFinite(reward)).toBe(true);
  }
});

describe('from the command line', () => {
  const messages = [{ role: 'user', content: '猫排队？' }];
  const configOf = (model: string) =>
    loadConfig({
      stage: 'generate',
      flags: { model: at(model), 'generate.maxNewTokens': 5, 'generate.temperature': 0, rm: at('judge'), threads: 1 },
    });

  it('generate answers them as it does the prompt that the template makes', async () => {
    const config = await configOf('chat');
    const [chat, prompt] = await all<GenerateOutput>(generate(config, [{ messages }, { prompt: ASKED }], silent));
    expect(chat!.prompt).toBe(ASKED);
    expect(chat!.completionIds).toEqual(prompt!.completionIds);
    // The reward model reads what was said, without the markup.
    const plain = await all<GenerateOutput>(generate(config, [{ prompt: '猫排队？\n' }], silent));
    expect(plain).toHaveLength(1);
    expect(chat!.reward).not.toBe(prompt!.reward);
  });

  it('score weighs the last turn and its end token', async () => {
    const config = await loadConfig({ stage: 'score', flags: { model: at('chat'), threads: 1 } });
    const answered = [...messages, { role: 'assistant', content: '喵。' }];
    const inputs = [{ messages: answered }, { prompt: ASKED, completion: '喵。<|im_end|>' }];
    const [chat, pair] = await all<ScoreOutput>(score(config, inputs, silent));
    expect(chat).toEqual(pair);
  });

  it('both refuse them for a model without a chat template', async () => {
    const refusal = { code: 'chat.no-template', where: 'input 1', exitCode: 2 };
    await expect(all(generate(await configOf('plain'), [{ messages }], silent))).rejects.toMatchObject(refusal);
    const config = await loadConfig({ stage: 'score', flags: { model: at('plain'), threads: 1 } });
    const answered = [...messages, { role: 'assistant', content: '喵。' }];
    await expect(all(score(config, [{ messages: answered }], silent))).rejects.toMatchObject(refusal);
  });
});

it.each<[string, unknown, RegExp]>([
  ['one turn', [{ role: 'assistant', content: '喵' }], /at least two turns/],
  [
    'a question at the end',
    [
      { role: 'user', content: 'a' },
      { role: 'user', content: 'b' },
    ],
    /not of the role assistant/,
  ],
  [
    'an empty answer',
    [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: ' ' },
    ],
    /is empty/,
  ],
  ['a turn without content', [{ role: 'user' }, { role: 'assistant', content: 'b' }], /turn 1: /],
])('a row with %s is refused', async (name, messages, message) => {
  const file = at(`${name}.jsonl`);
  await writeFile(file, `${line(0)}\n${JSON.stringify({ messages })}\n`);
  const refusal = await loadDataFile(file, 'optional').catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: 'data.invalid-messages', where: `${file}:2` });
  expect((refusal as UserError).message).toMatch(message);
});
