import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { excess, golden, goldenJson, goldenTensors, take } from '../support/golden.js';
import { spawnCli } from './spawn-cli.js';

const MODEL = golden('qwen3/model');

let cwd: string;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'duanzi-texts-'));
});
afterEach(() => rm(cwd, { recursive: true }));

const writeLines = (lines: readonly unknown[]): Promise<void> =>
  writeFile(join(cwd, 'in.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
const readLines = (text: string): unknown[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);

describe('generate', () => {
  it('writes the recorded ids for ids, as JSON Lines, without a tokenizer', async () => {
    const { prompts, continuation, max_new_tokens } = goldenJson('qwen3/greedy/greedy.json') as {
      prompts: number[][];
      continuation: number[][];
      max_new_tokens: number;
    };
    await writeLines(prompts.map((input_ids) => ({ input_ids })));
    const limits = ['--max-new-tokens', String(max_new_tokens), '--temperature', '0', '--ignore-eos'];
    const argv = ['generate', '--model', MODEL, '--input', 'in.jsonl', '--out', 'written', ...limits];
    const { code, stdout, stderr } = await spawnCli(argv, { cwd });
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(readLines(stdout)).toEqual(
      continuation.map((completion_ids) => ({ completion_ids, finish_reason: 'length' })),
    );
    expect(stderr).toMatch(/generate 3\/3 \(100 %\)/);
    expect(await readFile(join(cwd, 'written/generate.jsonl'), 'utf8')).toBe(stdout);
  });

  it('refuses a text where there is no tokenizer, in one message', async () => {
    const argv = ['generate', '--model', MODEL, '--headline', '猫排队买包子', '--json'];
    const { code, stdout, stderr } = await spawnCli(argv, { cwd });
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'tokenizer.missing-file', where: MODEL } });
    expect(stderr).toMatch(/^Error: The model folder has no tokenizer.*\n {2}Where: .*\n {2}Fix: .*\n$/);
  });
});

describe('score', () => {
  it('gives the recorded log-probabilities', async () => {
    const batch = await goldenTensors('qwen3/batch.safetensors');
    const [ids, mask, completion, logprobs] = ['input_ids', 'attention_mask', 'completion_mask', 'logprobs'].map(
      (name) => take(batch, name),
    );
    const [rows, length] = ids!.shape as [number, number];
    const lines = Array.from({ length: rows }, (_, row) => {
      const of = ({ data }: { data: ArrayLike<number> }, width: number, size = width): number[] =>
        Array.from({ length: size }, (_, i) => data[row * width + i]!);
      const size = of(mask!, length).reduce((a, b) => a + b, 0);
      const completion_mask = of(completion!, length, size);
      const expected = of(logprobs!, length - 1).filter((_, at) => completion_mask[at + 1] === 1);
      return { input: { input_ids: of(ids!, length, size), completion_mask }, expected };
    });
    await writeLines(lines.map(({ input }) => input));
    const { code, stdout, stderr } = await spawnCli(['score', '--model', MODEL, '--input', 'in.jsonl'], { cwd });
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const scores = readLines(stdout) as { logprobs: number[]; sum: number; mean: number; tokens: number }[];
    expect(scores).toHaveLength(rows);
    for (const [i, score] of scores.entries()) {
      const { expected } = lines[i]!;
      expect(expected.length).toBeGreaterThan(0);
      expect(Object.keys(score)).toEqual(['logprobs', 'sum', 'mean', 'tokens']);
      expect(excess(score.logprobs, expected, { atol: 1e-4 })).toBeLessThanOrEqual(0);
      const sum = expected.reduce((a, b) => a + b, 0);
      expect(Math.abs(score.sum - sum)).toBeLessThanOrEqual(1e-3);
      expect(Math.abs(score.mean - sum / expected.length)).toBeLessThanOrEqual(1e-4);
      expect(score.tokens).toBe(expected.length);
    }
  });

  it.each([
    [{ prompt: '猫' }, /not of a known form[\s\S]*in\.jsonl:2[\s\S]*"completion_mask"/],
    [{ input_ids: [3, 999], completion_mask: [0, 1] }, /The token id 999 .* 320[\s\S]*in\.jsonl:2/],
  ])('refuses %j and says where it stands', async (line, message) => {
    await writeLines([{ input_ids: [3, 4], completion_mask: [0, 1] }, line]);
    const { code, stdout, stderr } = await spawnCli(['score', '--model', MODEL, '--input', 'in.jsonl'], { cwd });
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^\s+at /m);
  });
});
