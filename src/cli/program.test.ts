import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { GenerateConfig, GenerateInput, SftConfig } from '../config/index.js';
import type { ScoreInput } from '../config/records.js';
import { UserError } from '../errors.js';
import { classify, generate, pipeline, report, score, stage } from './entries.js';
import type { Entry, Host } from './entry.js';
import { runProgram } from './program.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duanzi-cli-'));
});
afterEach(() => rm(folder, { recursive: true }));

const elsewhere = (): Promise<boolean> => Promise.resolve(false);

async function run(argv: string[], entries: Entry[]): Promise<{ out: string[]; people: string }> {
  const out: string[] = [];
  const people = new PassThrough();
  const host: Host = { signal: new AbortController().signal, print: (line) => void out.push(line), people, elsewhere };
  await runProgram(argv, entries, host);
  people.end();
  return { out, people: (await people.toArray()).join('') };
}

async function refusal(argv: string[], entries: Entry[]): Promise<UserError> {
  const outcome: unknown = await run(argv, entries).catch((error: unknown) => error);
  if (outcome instanceof UserError) return outcome;
  throw new Error(`expected a refusal, got ${JSON.stringify(outcome)}`);
}

describe('a stage', () => {
  const seen: SftConfig[] = [];
  const sft = stage('sft', 'Fine-tune.', () =>
    Promise.resolve((config, context) => {
      seen.push(config);
      context.onEvent({ type: 'start', stage: 'sft', out: config.out });
      context.onEvent({ type: 'metrics', step: 1, epoch: 0.5, values: { loss: 2, nan: NaN } });
      context.onEvent({ type: 'warning', code: 'w', message: 'mind this' });
      return Promise.resolve(config.out);
    }),
  );
  const argv = ['sft', '--model', '/base', '--set', 'data.dir=/rows', '--out', '/runs/x'];

  it('gets its flags as configuration and prints its run folder', async () => {
    const { out, people } = await run([...argv, '--resume', '--seed', '7', '--set', 'sft.epochs=2'], [sft]);
    expect(out).toEqual(['/runs/x']);
    expect(people).toBe('sft → /runs/x\nstep 1 (epoch 0.5) loss 2\nWarning: mind this\n');
    expect(seen.at(-1)).toMatchObject({ model: '/base', seed: 7, resume: true, sft: { epochs: 2 } });
  });

  it('prints events with --json and only warnings with --quiet', async () => {
    const { out, people } = await run([...argv, '--json', '--quiet'], [sft]);
    expect(out.map((line): unknown => JSON.parse(line))).toEqual([
      { type: 'start', stage: 'sft', out: '/runs/x' },
      { type: 'metrics', step: 1, epoch: 0.5, values: { loss: 2, nan: null } },
      { type: 'warning', code: 'w', message: 'mind this' },
    ]);
    expect(people).toBe('Warning: mind this\n');
  });

  it('shows its options and settings', async () => {
    const { out } = await run(['sft', '--help'], [sft]);
    for (const part of [
      '--model <dir>',
      '--adapter <dir>',
      '--resume',
      '--set <key=value>',
      'sft.learningRate [0.00002]',
    ]) {
      expect(out.join('\n')).toContain(part);
    }
  });

  it('names the nearest option', async () => {
    expect((await refusal([...argv, '--theads', '2'], [sft])).fix).toMatch(/Did you mean --threads/);
    expect((await refusal(['sft', 'extra'], [sft])).message).toMatch(/too many arguments/i);
  });
});

describe('run', () => {
  it('reads its recipe', async () => {
    const recipe = join(folder, 'r.yaml');
    await writeFile(recipe, 'models: { policy: p, reward: r }\ndata: { dir: d }\n');
    const entry = pipeline('All.', () => Promise.resolve((config) => Promise.resolve(config.models.policy)));
    expect((await run(['run', recipe], [entry])).out).toEqual([join(folder, 'p')]);
    expect((await refusal(['run'], [entry])).message).toMatch(/missing required argument 'recipe'/i);
  });
});

describe('report', () => {
  it('gets an absolute run folder', async () => {
    const entry = report('Report.', () => Promise.resolve((path) => Promise.resolve(path)));
    expect((await run(['report', 'x'], [entry])).out).toEqual([join(process.cwd(), 'x')]);
  });
});

describe('generate', () => {
  const calls: { config: GenerateConfig; inputs: readonly GenerateInput[] }[] = [];
  const entry = generate('Write.', () =>
    Promise.resolve(async function* (config, inputs) {
      calls.push({ config, inputs });
      for (const input of inputs) {
        const prompt = await Promise.resolve(JSON.stringify(input));
        yield { prompt, completion: '哈\u001b哈', completionIds: [1, 2], finishReason: 'stop' as const };
      }
    }),
  );
  const argv = ['generate', '--model', '/m'];

  it.each([
    [['--headline', '标题'], { headline: '标题' }],
    [['--words', '猫', '狗'], { words: ['猫', '狗'] }],
    [['--prompt', '从前'], { prompt: '从前' }],
  ])('%j prints the text, safe for a terminal', async (options, input) => {
    expect((await run([...argv, ...options], [entry])).out).toEqual(['哈\ufffd哈']);
    expect(calls.at(-1)?.inputs).toEqual([input]);
  });

  it('answers a file in JSON Lines, and leaves a copy where asked', async () => {
    const file = join(folder, 'in.jsonl');
    await writeFile(file, '\ufeff{"prompt":"a"}\r\n\n{"input_ids":[3,4]}\n{"words":["x","y"]}\n');
    const all = [
      ...argv,
      '--input',
      file,
      '--out',
      folder,
      '--temperature',
      '0',
      '--max-new-tokens',
      '5',
      '--ignore-eos',
    ];
    const { out } = await run(all, [entry]);
    expect(out.map((line): unknown => JSON.parse(line))[1]).toEqual({
      prompt: JSON.stringify({ inputIds: [3, 4], where: `${file}:3` }),
      completion: '哈\u001b哈',
      completion_ids: [1, 2],
      finish_reason: 'stop',
    });
    expect(calls.at(-1)?.config.generate).toMatchObject({ temperature: 0, maxNewTokens: 5, ignoreEos: true });
    expect(await readFile(join(folder, 'generate.jsonl'), 'utf8')).toBe(`${out.join('\n')}\n`);
    expect(await refusal(all, [entry])).toMatchObject({ code: 'file.exists' });
  });

  it.each([
    [[], /nothing to write about/],
    [['--prompt', 'a', '--headline', 'b'], /headline and prompt at once/],
    [['--words', 'a'], /takes two words and got 1/],
    [['--prompt', ''], /text is empty/],
    [['--prompt', 'a', '--best-of', '3'], /bestOf is 3, but no reward model/],
  ])('refuses %j', async (options, message) => {
    expect((await refusal([...argv, ...options], [entry])).message).toMatch(message);
  });
});

describe('score and classify', () => {
  const inputs: (readonly ScoreInput[])[] = [];
  const output = { logprobs: [-1], sum: -1, mean: -1, tokens: 1 };
  const scoring = score('Score.', () =>
    Promise.resolve((_, given) => {
      inputs.push(given);
      return Promise.resolve(given.map(() => output));
    }),
  );

  it('read and write JSON Lines', async () => {
    const file = join(folder, 'in.jsonl');
    await writeFile(file, '{"prompt":"a","completion":"b"}\n{"input_ids":[1,2],"completion_mask":[0,1]}');
    const { out } = await run(['score', '--model', '/m', '--input', file], [scoring]);
    expect(out).toEqual([JSON.stringify(output), JSON.stringify(output)]);
    expect(inputs.at(-1)).toEqual([
      { prompt: 'a', completion: 'b', where: `${file}:1` },
      { inputIds: [1, 2], completionMask: [0, 1], where: `${file}:2` },
    ]);

    const classifying = classify('Classify.', () =>
      Promise.resolve((_, given) => Promise.resolve(given.map(() => ({ logits: [0, 1], probability: 0.73 })))),
    );
    await writeFile(file, '{"text":"a"}\n');
    const answer = await run(['classify', '--model', '/m', '--input', file], [classifying]);
    expect(answer.out).toEqual(['{"logits":[0,1],"probability":0.73}']);
  });

  it.each([
    ['{"prompt":"a","completion":"b"}\n{"prompt":', 'input.json', ':2'],
    ['{"prompt":"a"}', 'input.form', ':1'],
    ['\n\n', 'input.empty', ''],
    ['{"input_ids":[1,2],"completion_mask":[1]}', 'input.form', ':1'],
    ['{"input_ids":[1.5],"completion_mask":[1]}', 'input.form', ':1'],
  ])('refuse %j before any work', async (text, code, line) => {
    const file = join(folder, 'in.jsonl');
    await writeFile(file, text);
    const before = inputs.length;
    const error = await refusal(['score', '--model', '/m', '--input', file], [scoring]);
    expect(error).toMatchObject({ code, where: file + line });
    expect(inputs.length).toBe(before);
  });

  it('refuse a file that is not there or not UTF-8', async () => {
    const file = join(folder, 'in.jsonl');
    expect(await refusal(['score', '--model', '/m', '--input', file], [scoring])).toMatchObject({
      code: 'input.unreadable',
    });
    await writeFile(file, Buffer.from([0xb6, 0xce]));
    expect((await refusal(['score', '--model', '/m', '--input', file], [scoring])).message).toMatch(/not UTF-8/);
  });
});
