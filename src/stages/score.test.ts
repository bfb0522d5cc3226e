import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TINY, writeTinyAdapter, writeTinyModel } from '../../tests/support/tiny-model.js';
import { loadConfig } from '../config/load.js';
import type { ScoreInput, ScoreOutput } from '../config/records.js';
import type { StageEvent } from '../runs/events.js';
import { loadTokenizer } from '../text/load-tokenizer.js';
import { score } from './score.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duanzi-score-'));
  await writeTinyModel(join(folder, 'model'));
  await writeTinyAdapter(join(folder, 'adapter'));
});
afterAll(() => rm(folder, { recursive: true }));

const events: StageEvent[] = [];
async function measure(inputs: readonly ScoreInput[], flags: Record<string, unknown> = {}): Promise<ScoreOutput[]> {
  events.length = 0;
  const config = await loadConfig({ stage: 'score', flags: { model: join(folder, 'model'), threads: 1, ...flags } });
  const scores: ScoreOutput[] = [];
  for await (const each of score(config, inputs, { onEvent: (event) => events.push(event) })) scores.push(each);
  return scores;
}

it('scores a text as its ids, EOS where it is written, and the token that reaches over the boundary', async () => {
  const tokenizer = await loadTokenizer(join(folder, 'model'));
  const idsOf = (prompt: string, completion: string, promptLength: number): ScoreInput => {
    const inputIds = tokenizer.encode(prompt + completion);
    return { inputIds, completionMask: inputIds.map((_, i) => (i < promptLength ? 0 : 1)) };
  };
  const [prompt, completion] = ['标题：猫排队', '，笑了'];
  expect(tokenizer.encode('雨伞')).toHaveLength(1);

  const scores = await measure([
    { prompt, completion },
    idsOf(prompt, completion, tokenizer.encode(prompt).length),
    { prompt, completion: `${completion}</s>` },
    { prompt: '今天雨', completion: '伞' },
    idsOf('今天雨', '伞', tokenizer.encode('今天').length),
  ]);
  const [text, ids, withEos, over, overIds] = scores;
  expect(ids).toEqual(text);
  expect(withEos!.tokens).toBe(text!.tokens + 1);
  expect(withEos!.logprobs.slice(0, -1)).toEqual(text!.logprobs);
  expect(over).toEqual(overIds);
  for (const { logprobs, sum, mean, tokens } of scores) {
    expect(tokens).toBe(logprobs.length);
    expect(sum).toBeCloseTo(
      logprobs.reduce((a, b) => a + b, 0),
      10,
    );
    expect(mean).toBeCloseTo(sum / tokens, 10);
    for (const value of logprobs) expect(value).toBeLessThanOrEqual(0);
  }
});

it('gives the probabilities of a distribution: those of all next tokens sum to 1, with an adapter too', async () => {
  const inputs = Array.from({ length: TINY.vocabSize }, (_, id) => ({
    inputIds: [5, 9, id],
    completionMask: [0, 0, 1] as (0 | 1)[],
  }));
  const base = await measure(inputs);
  expect(events.at(-1)).toEqual({ type: 'progress', task: 'score', done: inputs.length, total: inputs.length });
  const adapted = await measure(inputs, { adapter: join(folder, 'adapter') });
  for (const scores of [base, adapted]) {
    expect(scores.reduce((mass, { sum }) => mass + Math.exp(sum), 0)).toBeCloseTo(1, 5);
  }
  expect(adapted).not.toEqual(base);
});

it.each<[string, ScoreInput, string]>([
  ['an id that the model has not', { inputIds: [1, TINY.vocabSize], completionMask: [0, 1] }, 'input.unknown-id'],
  [
    'more tokens than the model has positions',
    { inputIds: Array<number>(129).fill(1), completionMask: Array<1>(129).fill(1) },
    'input.too-long',
  ],
  ['nothing to score', { inputIds: [1, 2, 3], completionMask: [1, 0, 0] }, 'score.no-tokens'],
  ['nothing before the only token', { prompt: '', completion: '</s>' }, 'score.no-tokens'],
])('refuses %s before anything is computed', async (_, input, code) => {
  const good: ScoreInput = { prompt: '猫', completion: '狗' };
  await expect(measure([good, input])).rejects.toMatchObject({ code, where: 'input 2', exitCode: 2 });
  expect(events).toEqual([]);
});
