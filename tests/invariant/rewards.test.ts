import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import type { GrpoConfig } from '../../src/config/stages.js';
import type { StageEvent } from '../../src/runs/events.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { grpo } from '../../src/stages/grpo.js';
import type { RolloutRecord } from '../../src/stages/grpo/rollout.js';
import { miniRows, writeMiniData, writeMiniEncoder, writeMiniPolicy } from '../support/mini-humor.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-rewards-'));
const at = (name: string): string => join(root, name);
afterAll(() => rm(root, { recursive: true }));

const rows = miniRows(60);
beforeAll(async () => {
  await writeMiniData(at('data'), rows);
  await writeMiniPolicy(at('policy'), rows);
  await writeMiniEncoder(at('judge'), rows, 'classifier');
});

const configOf = (flags: Record<string, unknown>): Promise<GrpoConfig> =>
  loadConfig({
    stage: 'grpo',
    flags: {
      model: at('policy'),
      'data.dir': at('data'),
      'data.validationFraction': 0.2,
      'data.templates.headline': '标题：{headline}\n',
      'data.templates.words': '词语：{word1}、{word2}\n',
      'lora.r': 4,
      'grpo.numGenerations': 4,
      'grpo.completionsPerRollout': 8,
      'grpo.batchSize': 8,
      'grpo.maxSteps': 4,
      'grpo.maxCompletionLength': 12,
      'grpo.learningRate': 0.01,
      'grpo.warmupSteps': 0,
      'grpo.loggingSteps': 1,
      'grpo.saveSteps': 2,
      'grpo.evalPrompts': 0,
      threads: 1,
      ...flags,
    },
  });

async function run(out: string, flags: Record<string, unknown>): Promise<StageEvent[]> {
  const events: StageEvent[] = [];
  await grpo(await configOf({ ...flags, out: at(out) }), { onEvent: (event) => events.push(event) });
  return events;
}

const trained = (out: string): Record<string, number>[] =>
  readMetrics(at(`${out}/metrics.jsonl`)).flatMap(({ values }) => ('loss' in values ? [values] : []));

async function rollouts(out: string): Promise<(RolloutRecord & { step: number })[]> {
  const lines = (await readFile(at(`${out}/rollouts.jsonl`), 'utf8')).trim().split('\n');
  return lines.map((line) => JSON.parse(line) as RolloutRecord & { step: number });
}

describe('several rewards', () => {
  const weights = { 'grpo.rewards.words.weight': 2, 'grpo.rewards.ending.weight': 0.5 };

  it('are weighed and summed, each logged under its name; one may not apply', async () => {
    await run('several', { ...weights, rm: at('judge'), 'grpo.rewards.model.weight': -1 });
    const records = await rollouts('several');
    const templates = new Set<string>();
    for (const { reward, rewards, template, finishReason } of records) {
      templates.add(template);
      expect(Object.keys(rewards!)).toEqual(['reward_model', 'words', 'ending']);
      expect(rewards!['words'] === null).toBe(template === 'headline');
      expect(rewards!['ending']).toBe(finishReason === 'stop' ? 1 : 0);
      const sum = -rewards!['reward_model']! + 2 * (rewards!['words'] ?? 0) + 0.5 * rewards!['ending']!;
      expect(reward).toBeCloseTo(sum, 10);
    }
    expect([...templates].sort()).toEqual(['headline', 'words']);
    const [first] = trained('several');
    const own = records.filter(({ step }) => step === 1).map(({ rewards }) => rewards!['ending']!);
    expect(first!['rewards/ending/mean']).toBeCloseTo(own.reduce((a, b) => a + b, 0) / own.length, 10);
    for (const name of ['reward_model', 'words', 'ending']) expect(first).toHaveProperty(`rewards/${name}/std`);
  });

  it('are normalised one by one where that is asked for', async () => {
    const flags = { ...weights, 'grpo.maxSteps': 1, 'grpo.rewards.length.weight': 1 };
    await run('sum', { ...flags });
    await run('each', { ...flags, 'grpo.rewards.aggregation': 'normalize_then_sum' });
    const [sum, each] = [await rollouts('sum'), await rollouts('each')];
    expect(each.map(({ completion }) => completion)).toEqual(sum.map(({ completion }) => completion));
    expect(each.map(({ reward }) => reward)).toEqual(sum.map(({ reward }) => reward));
    expect(each.map(({ advantage }) => advantage)).not.toEqual(sum.map(({ advantage }) => advantage));
  });

  it('are needed: none at all is refused', async () => {
    await expect(configOf({})).rejects.toMatchObject({
      code: 'config.combination',
      fix: expect.stringMatching(/--reward FILE/) as unknown,
    });
    const unweighted = { rm: at('judge'), 'grpo.rewards.model.weight': 0 };
    await expect(configOf(unweighted)).rejects.toThrow(
      /grpo\.rewards\.model\.weight is 0, and nothing else is rewarded/,
    );
    await expect(
      configOf({ ...unweighted, 'grpo.rewards.file.weight': 0, 'grpo.rewards.file.path': 'r.ts' }),
    ).rejects.toThrow();
  });
});

describe('a reward of one’s own', () => {
  it('rewards by itself, without a reward model', async () => {
    await writeFile(
      at('vowels.ts'),
      `
      import type { Reward } from 'duanzi';
      const reward: Reward = async (rows) => rows.map(({ completion, fields }) =>
        completion === '' ? null : completion.length / 10 + (fields['headline'] === undefined ? 100 : 0));
      export default reward;
    `,
    );
    await run('own', { 'grpo.rewards.file.path': at('vowels.ts') });
    for (const { completion, reward } of await rollouts('own')) {
      if (completion === '') expect(reward).toBeNull();
      else expect(reward).toBeCloseTo(completion.length / 10, 10);
    }
    expect(trained('own')[0]).toHaveProperty('rewards/vowels/mean');
  });

  it.each([
    ['throws', 'if (calls === 4) throw new Error("a bad day");', 'reward.threw', 'The reward threw Error: a bad day'],
    ['gives too few', 'if (calls === 4) return [1];', 'reward.fault', /returned 1 score for 8 rows/],
    ['gives NaN', 'if (calls === 4) return rows.map(() => NaN);', 'reward.fault', /returned NaN for row 0 of 8/],
    ['never ends', 'while (calls === 4);', 'reward.time-limit', /within 10 s/],
  ])('that %s in the midst is saved before, and goes on when it is mended', async (name, fault, code, message) => {
    const flags = {
      'grpo.saveSteps': 100,
      'grpo.rewards.file.timeLimit': 10,
      'grpo.rewards.file.path': at('frail.ts'),
    };
    const source = (body: string): string =>
      `let calls = 0;\nexport default (rows) => {\n  calls += 1;\n  ${body}\n  return rows.map((row) => row.completion.length);\n};\n`;
    await writeFile(at('frail.ts'), source(fault));
    await expect(run(`frail ${name}`, flags)).rejects.toMatchObject({ code, message });
    expect(await readdir(at(`frail ${name}/checkpoints`))).toEqual(['step-3']);

    await writeFile(at('frail.ts'), source(''));
    const events = await run(`frail ${name}`, { ...flags, resume: true });
    expect(events.flatMap((event) => (event.type === 'warning' ? [event.code] : []))).toEqual(['reward.changed']);
    expect(events.flatMap((event) => (event.type === 'progress' ? [event.done] : []))).toEqual([4]);

    await run(`strong ${name}`, flags);
    const files = (out: string): Promise<Buffer[]> =>
      Promise.all(
        ['adapter/adapter_model.safetensors', 'metrics.jsonl', 'rollouts.jsonl'].map((name) =>
          readFile(at(`${out}/${name}`)),
        ),
      );
    expect(await files(`frail ${name}`)).toEqual(await files(`strong ${name}`));
  });

  it('that does not compile is refused before anything is written', async () => {
    await writeFile(at('broken.ts'), 'export default (rows =>');
    await expect(run('broken', { 'grpo.rewards.file.path': at('broken.ts') })).rejects.toMatchObject({
      code: 'reward.syntax',
    });
    await expect(readFile(at('broken/manifest.json'))).rejects.toThrow('ENOENT');
  });
});

describe('early stopping', () => {
  // Nothing ever gets better where nothing is learned: the first look is the best, and patience decides.
  const flags = {
    'grpo.rewards.words.weight': 1,
    'grpo.learningRate': 1e-12,
    'grpo.maxSteps': 20,
    'grpo.evalPrompts': 4,
    'grpo.evalSteps': 2,
    'grpo.earlyStopping.patience': 2,
    'grpo.earlyStopping.minDelta': 0.01,
  };

  it.each(['rules', 'length_controlled'])(
    'ends a run whose held-out criterion does not rise: %s',
    async (criterion) => {
      const out = `stop ${criterion}`;
      const events = await run(out, { ...flags, 'grpo.earlyStopping.criterion': criterion });
      const looks = events.flatMap((event) =>
        event.type === 'metrics' && 'eval_criterion' in event.values ? [event.step] : [],
      );
      expect(looks).toEqual([0, 2, 4, 6]);
      const done = events.flatMap((event) => (event.type === 'progress' && event.task === 'grpo' ? [event.done] : []));
      expect(done.at(-1)).toBe(6);
      expect(events.at(-1)?.type).toBe('end');
      await readFile(at(`${out}/adapter/adapter_model.safetensors`));
    },
  );

  it('goes on from where a crash left it to the same end', async () => {
    const stop = { ...flags, 'grpo.earlyStopping.criterion': 'rules' };
    const config = await configOf({ ...stop, out: at('stop crash') });
    const crashing = grpo(config, {
      onEvent: (event) => {
        if (event.type === 'progress' && event.done === 5) throw new Error('the lights went out');
      },
    });
    await expect(crashing).rejects.toThrow('the lights went out');
    await run('stop crash', { ...stop, resume: true });
    const metrics = (out: string): Promise<string> => readFile(at(`${out}/metrics.jsonl`), 'utf8');
    expect(await metrics('stop crash')).toBe(await metrics('stop rules'));
  });

  it('needs held-out prompts', async () => {
    const wrong = { ...flags, 'grpo.evalPrompts': 0, 'grpo.earlyStopping.criterion': 'rules' };
    await expect(configOf(wrong)).rejects.toThrow(/no held-out prompt is looked at/);
  });
});
