import { mkdir, mkdtemp, readdir, readFile, rm as remove, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { dataSection } from '../../src/config/data.js';
import { loadConfig } from '../../src/config/load.js';
import type { StageName } from '../../src/config/stages.js';
import { PUBLISHED_FILES } from '../../src/data/published.js';
import { completionOf, headlineOf, type Row } from '../../src/data/row.js';
import { normalise, splitRows } from '../../src/data/split.js';
import { UserError } from '../../src/errors.js';
import type { StageContext } from '../../src/runs/events.js';
import { grpo } from '../../src/stages/grpo.js';
import { pretrain } from '../../src/stages/pretrain.js';
import { rm } from '../../src/stages/rm.js';
import { sft } from '../../src/stages/sft.js';
import { loadRows, type DataConfig, type StageRows } from '../../src/training/rows.js';
import {
  MINI_HUMOR,
  miniRows,
  writeMiniData,
  writeMiniEncoder,
  writeMiniPolicy,
  type MiniRow,
} from '../support/mini-humor.js';

/*
 * Nothing trains on its validation rows, and no stage on those of another: shown on the rows that stages read, and on
 * what they learn.
 */

const root = await mkdtemp(join(tmpdir(), 'duanzi-leaks-'));
const folder = (name: string): string => join(root, name);
afterAll(() => remove(root, { recursive: true }));

const STAGES = ['pretrain', 'sft', 'rm', 'grpo'] as const;
type TrainingStage = (typeof STAGES)[number];

/** The rows that each stage reads, as it asks for them. */
async function rowsOfStages(data: DataConfig): Promise<Record<TrainingStage, StageRows>> {
  const jokes = await loadRows(data, ['sft_train'], 'optional');
  return {
    pretrain: await loadRows(data, ['sft_train', 'rm_train'], 'optional'),
    sft: jokes,
    rm: await loadRows(data, ['rm_train'], 'required'),
    grpo: jokes,
  };
}

const texts = (rows: readonly Row[]): { headlines: Set<string>; completions: Set<string> } => ({
  headlines: new Set(rows.map(headlineOf).flatMap((text) => (text === undefined ? [] : [normalise(text)]))),
  completions: new Set(rows.map((row) => normalise(completionOf(row)))),
});

const shared = (a: ReadonlySet<string>, b: ReadonlySet<string>): string[] => [...a].filter((text) => b.has(text));

function expectNoLeak(stages: Record<TrainingStage, StageRows>): void {
  const all = Object.values(stages);
  const learned = texts(all.flatMap(({ train }) => train));
  for (const heldOut of [texts(all.flatMap(({ validation }) => validation)), texts(all.flatMap(({ test }) => test))]) {
    expect(shared(learned.headlines, heldOut.headlines)).toEqual([]);
    expect(shared(learned.completions, heldOut.completions)).toEqual([]);
  }
}

describe('the rows of all stages', () => {
  it('of the shipped data: no stage learns from a headline or text that any stage holds out', async () => {
    const stages = await rowsOfStages(dataSection.parse({ dir: MINI_HUMOR }));
    expectNoLeak(stages);
    for (const name of STAGES) {
      expect(stages[name].validation.length, name).toBeGreaterThan(0);
      expect(stages[name].test, name).toHaveLength(60);
    }
    const documents = stages.pretrain.train.map((row) => `${headlineOf(row)!}\n${completionOf(row)}`).join('\n\n');
    for (const row of [...stages.pretrain.validation, ...stages.pretrain.test]) {
      expect(documents).not.toContain(completionOf(row));
      expect(documents).not.toContain(`${headlineOf(row)!}\n`);
    }
  });

  it('of the shipped data: a joke is on the same side for every stage', async () => {
    const stages = await rowsOfStages(dataSection.parse({ dir: MINI_HUMOR, validationFraction: 0.2 }));
    const jokes = (rows: readonly Row[]): string[] =>
      rows
        .filter(({ label }) => label !== 0)
        .map(completionOf)
        .sort();
    for (const side of ['train', 'validation'] as const) {
      expect(jokes(stages.rm[side])).toEqual(jokes(stages.sft[side]));
      expect([...new Set(jokes(stages.pretrain[side]))]).toEqual(jokes(stages.sft[side]));
    }
  });

  // Few texts in several spellings, so that rows of one and of several files share headlines and completions.
  const spelt = (words: string[]): fc.Arbitrary<string> =>
    fc.tuple(fc.constantFrom(...words), fc.constantFrom('', '！', ' ')).map(([word, end]) => word + end);
  const headline = fc.oneof(
    spelt(['猫排队', '狗开会', 'Ａ股', 'a股', '鱼', '雨', '风', '雪', '云', '山']),
    fc.constant(''),
  );
  const row = fc.tuple(
    headline,
    spelt(['好笑', '不好笑', '哈', '呵呵', '嘻嘻', '笑死', '一', '二', '三']),
    fc.constantFrom(0, 1),
  );
  const file = fc.array(row, { minLength: 1, maxLength: 30 });
  const data = fc.record({
    sft_train: file,
    rm_train: file,
    rm_test: fc.option(fc.array(row, { minLength: 1, maxLength: 3 }), { nil: undefined }),
    splitSeed: fc.nat(1000),
    validationFraction: fc.double({ min: 0, max: 0.9, noNaN: true }),
    limit: fc.option(fc.integer({ min: 1, max: 10 }), { nil: undefined }),
  });

  it('of any folder: no headline or text that is held out somewhere is learned anywhere', async () => {
    let [number, judged] = [0, 0];
    const property = fc.asyncProperty(data, async ({ splitSeed, validationFraction, limit, ...files }) => {
      const dir = folder(`any-${number++}`);
      await mkdir(dir);
      for (const [name, rows] of Object.entries(files)) {
        if (rows === undefined) continue;
        const lines = rows.map(([title, joke, label]) => `${title},甲,乙,${joke},${label}`);
        await writeFile(join(dir, `${name}.csv`), ['headline,word1,word2,joke,label', ...lines].join('\n'));
      }
      const section = dataSection.parse({ dir, splitSeed, validationFraction, limit });
      const stages = await rowsOfStages(section).catch((error: unknown) => {
        // So much may be held out that nothing is left to learn from.
        if (error instanceof UserError && error.code === 'data.no-training-rows') return undefined;
        throw error;
      });
      if (stages === undefined) return;
      judged++;
      expectNoLeak(stages);
    });
    await fc.assert(property, { numRuns: 60 });
    expect(judged).toBeGreaterThan(20);
  });

  it('of single files: headlines are on the same side in each of them', async () => {
    await writeMiniData(folder('files'), miniRows(200));
    const read = (name: string) =>
      loadRows(dataSection.parse({ file: join(folder('files'), name), validationFraction: 0.2 }), [], 'optional');
    const [jokes, labelled] = [await read('sft_train.csv'), await read('rm_train.csv')];
    for (const [one, other] of [
      [jokes, labelled],
      [labelled, jokes],
    ] as const) {
      expect(shared(texts(one.train).headlines, texts(other.validation).headlines)).toEqual([]);
    }
  });
});

describe('what a stage learns', () => {
  const split = { seed: 1, validationFraction: 0.2 };
  const silent: StageContext = { onEvent: () => undefined };

  /** The same rows, but for those held out: they get other headlines (that are held out too), words and texts. */
  function withOtherValidation(rows: readonly MiniRow[]): MiniRow[] {
    const isHeldOut = (headline: string): boolean =>
      splitRows([{ file: '', line: 1, fields: { headline, completion: headline } }], split).validation.length > 0;
    const others = new Map<string, string>();
    let number = 0;
    const other = (headline: string): string => {
      let found = others.get(headline);
      while (found === undefined || !isHeldOut(found)) found = `另一个标题 ${number++} 号`;
      others.set(headline, found);
      return found;
    };
    return rows.map((row, i) => {
      if (!isHeldOut(row.headline)) return row;
      return {
        ...row,
        headline: other(row.headline),
        word1: '甲',
        word2: '乙',
        joke: `别的文字 ${i}：${'啊'.repeat(i % 9)}`,
      };
    });
  }

  beforeAll(async () => {
    const rows = miniRows(60);
    await writeMiniData(folder('given'), rows);
    await writeMiniData(folder('other'), withOtherValidation(rows));
    await writeMiniPolicy(folder('policy'), rows);
    await writeMiniEncoder(folder('encoder'), rows, 'masked');
    await writeMiniEncoder(folder('judge'), rows, 'classifier');
  });

  /** With one look at the validation rows, at the end: which weights are kept is theirs to say, what is learned is not. */
  const settings = (name: TrainingStage): Record<string, unknown> => ({
    'data.validationFraction': split.validationFraction,
    'data.splitSeed': split.seed,
    'data.templates.headline': '标题：{headline}\n',
    'data.templates.words': '词语：{word1}、{word2}\n',
    [`${name}.maxSteps`]: 2,
    [`${name}.batchSize`]: 4,
    [`${name}.loggingSteps`]: 1,
    [`${name}.learningRate`]: 0.01,
    [`${name}.warmupSteps`]: 0,
    threads: 1,
  });

  const configure = <Name extends StageName>(stage: Name, flags: Record<string, unknown>) =>
    loadConfig({ stage, flags });

  const runs: Record<TrainingStage, (flags: Record<string, unknown>) => Promise<string>> = {
    pretrain: async (flags) => {
      const model = {
        vocabSize: 500,
        hiddenSize: 16,
        intermediateSize: 32,
        layers: 1,
        heads: 2,
        kvHeads: 1,
        headDim: 8,
      };
      const sizes = Object.entries(model).map(([key, value]) => [`pretrain.${key}`, value] as const);
      return pretrain(await configure('pretrain', { ...flags, ...Object.fromEntries(sizes) }), silent);
    },
    sft: async (flags) => {
      const own = { model: folder('policy'), 'sft.samples': 1, 'sft.sampling.maxNewTokens': 2 };
      return sft(await configure('sft', { ...flags, ...own }), silent);
    },
    rm: async (flags) =>
      rm(await configure('rm', { ...flags, model: folder('encoder'), 'rm.baselines': false }), silent),
    grpo: async (flags) => {
      const own = {
        model: folder('policy'),
        rm: folder('judge'),
        'grpo.completionsPerRollout': 4,
        'grpo.maxCompletionLength': 6,
        'grpo.evalPrompts': 4,
      };
      return grpo(await configure('grpo', { ...flags, ...own }), silent);
    },
  };

  it.each([
    ['pretrain', ['model/model.safetensors', 'model/tokenizer.json']],
    ['sft', ['adapter/adapter_model.safetensors']],
    ['rm', ['model/model.safetensors']],
    ['grpo', ['adapter/adapter_model.safetensors', 'rollouts.jsonl']],
  ] as const)('%s: not a bit depends on the rows held out', async (name, files) => {
    const [given, other] = await Promise.all(
      ['given', 'other'].map((rows) =>
        runs[name]({ ...settings(name), 'data.dir': folder(rows), out: folder(`${name}-${rows}`) }),
      ),
    );
    const read = (out: string | undefined, file: string): Promise<string> => readFile(join(out!, file), 'latin1');
    for (const file of files) expect((await read(given, file)) === (await read(other, file)), file).toBe(true);
    // They were looked at, though: what they say differs.
    expect(await read(given, 'metrics.jsonl')).not.toBe(await read(other, 'metrics.jsonl'));
  });
});

describe('the bases that ship', () => {
  const repository = fileURLToPath(new URL('../../', import.meta.url));
  const { splitSeed, validationFraction } = dataSection.parse({ dir: '.' });
  const provenance = z.object({
    recipe: z.string(),
    data: z.object({ files: z.record(z.string(), z.string()), splitSeed: z.int(), validationFraction: z.number() }),
  });
  const readRecipe = async (file: string): Promise<unknown> =>
    parseYaml(await readFile(join(repository, file), 'utf8'));

  it.each(['nano-qwen3', 'nano-deberta'])('%s was made of the training rows of the default split', async (name) => {
    const text = await readFile(join(repository, 'assets', name, 'provenance.json'), 'utf8');
    const { data, recipe } = provenance.parse(JSON.parse(text));
    const files = Object.fromEntries(
      PUBLISHED_FILES.map(({ name: file, sha256 }) => [file.replace('.csv', ''), sha256]),
    );
    expect(data).toEqual({ files, splitSeed, validationFraction });
    expect(await readRecipe(recipe)).not.toHaveProperty('data');
  });

  it('are not asked for texts that they learned: no recipe on the published data holds out what they saw', async () => {
    const settings = z.object({
      models: z.object({ policy: z.string() }).optional(),
      data: z
        .object({
          dir: z.string().optional(),
          splitSeed: z.int().default(splitSeed),
          validationFraction: z.number().default(validationFraction),
        })
        .prefault({}),
    });
    for (const name of await readdir(join(repository, 'recipes'))) {
      const { models, data } = settings.parse(await readRecipe(join('recipes', name)));
      if (models?.policy.includes('nano-') !== true || data.dir?.endsWith('mini-humor') === true) continue;
      expect(data.splitSeed, name).toBe(splitSeed);
      // A larger fraction holds out a superset.
      expect(data.validationFraction, name).toBeLessThanOrEqual(validationFraction);
    }
  });
});
