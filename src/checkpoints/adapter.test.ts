import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import {
  adaptedModules,
  checkAdapter,
  initialAdapter,
  loraNamesOf,
  loraTensorNames,
  openAdapter,
  savedTensors,
  writeAdapter,
  type AdapterFolder,
  type Shapes,
} from './adapter.js';
import { loraScale } from '../nn/context.js';
import { adapterConfigToPeft, loraOf, parseAdapterConfig, type AdapterConfig } from './adapter-config.js';
import { loadTensors } from './model-folder.js';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'adapter-'));
});
afterAll(() => rm(dir, { recursive: true }));

const config: AdapterConfig = {
  r: 2,
  loraAlpha: 4,
  loraDropout: 0.05,
  targetModules: ['q_proj', 'v_proj'],
  useRslora: false,
  taskType: 'CAUSAL_LM',
  baseModelNameOrPath: null,
};

const shapes = (entries: Record<string, number[]>): Shapes =>
  new Map(Object.entries(entries).map(([name, shape]) => [name, { shape }]));
const model = shapes({
  'model.embed_tokens.weight': [9, 4],
  'model.layers.0.self_attn.q_proj.weight': [6, 4],
  'model.layers.0.self_attn.q_proj.bias': [6],
  'model.layers.0.self_attn.v_proj.weight': [3, 4],
  'model.layers.0.self_attn.q_norm.weight': [6],
});
const q = loraTensorNames('model.layers.0.self_attn.q_proj');
const v = loraTensorNames('model.layers.0.self_attn.v_proj');
const where = 'adapter_config.json';

describe('adapter_config.json', () => {
  it('what is written is read back the same', () => {
    const arbitrary = fc.record<AdapterConfig>({
      r: fc.integer({ min: 1, max: 256 }),
      loraAlpha: fc.integer({ min: 1, max: 512 }),
      loraDropout: fc.double({ min: 0, max: 0.9, noNaN: true }),
      targetModules: fc.uniqueArray(fc.string(), { minLength: 1 }).map((names) => names.sort()),
      useRslora: fc.boolean(),
      modulesToSave: fc.uniqueArray(fc.string(), { minLength: 1 }),
      taskType: fc.constantFrom('CAUSAL_LM', 'SEQ_CLS', 'FEATURE_EXTRACTION', null),
      baseModelNameOrPath: fc.option(fc.string()),
    });
    fc.assert(
      fc.property(arbitrary, (given) => {
        expect(parseAdapterConfig(JSON.parse(JSON.stringify(adapterConfigToPeft(given))), where)).toEqual(given);
      }),
    );
  });

  it('reads the short configs of older PEFT', () => {
    const short = { peft_type: 'LORA', r: 8, lora_alpha: 16, target_modules: ['q_proj'] };
    expect(parseAdapterConfig(short, where)).toEqual({
      ...config,
      r: 8,
      loraAlpha: 16,
      loraDropout: 0,
      targetModules: ['q_proj'],
      taskType: null,
    });
  });

  it.each<[object, RegExp]>([
    [{ use_dora: true }, /use_dora true is not supported/],
    [{ bias: 'lora_only' }, /bias lora_only/],
    [{ peft_type: 'IA3' }, /peft_type IA3/],
    [{ modules_to_save: 'classifier' }, /`modules_to_save` is "classifier"/],
    [{ rank_pattern: { q_proj: 4 } }, /rank_pattern/],
    [{ init_lora_weights: 'pissa' }, /init_lora_weights "pissa"/],
    [{ target_modules: 'all-linear' }, /`target_modules` is "all-linear"/],
    [{ r: 0 }, /`r` is 0/],
    [{ lora_dropout: 1 }, /`lora_dropout` is 1/],
  ])('refuses %j', (fields, message) => {
    expect(() => parseAdapterConfig({ ...adapterConfigToPeft(config), ...fields }, where)).toThrow(message);
  });

  it('scales by alpha/r, or alpha/√r with rsLoRA', () => {
    expect(loraScale(loraOf({ config: { ...config, r: 16, loraAlpha: 32, useRslora: false } }))).toBe(2);
    expect(loraScale(loraOf({ config: { ...config, r: 16, loraAlpha: 32, useRslora: true } }))).toBe(8);
  });
});

describe('modules that an adapter holds whole', () => {
  const saving: AdapterConfig = { ...config, taskType: 'SEQ_CLS', modulesToSave: ['classifier', 'score'] };
  const zerosOf = (sizes: Record<string, number[]>): Map<string, Tensor<'float32'>> =>
    new Map(
      Object.entries(sizes).map(([name, shape]) => [
        name,
        { dtype: 'float32', shape, data: new Float32Array(shape.reduce((product, size) => product * size, 1)) },
      ]),
    );
  const factors = { [q.a]: [2, 4], [q.b]: [6, 2], [v.a]: [2, 4], [v.b]: [3, 2] };
  const head = { 'base_model.model.classifier.weight': [2, 4], 'base_model.model.classifier.bias': [2] };
  const withHead = shapes({
    ...Object.fromEntries([...model].map(([name, { shape }]) => [name, [...shape]])),
    'classifier.weight': [2, 4],
    'classifier.bias': [2],
  });
  const written = async (name: string, tensors: Record<string, number[]>): Promise<AdapterFolder> => {
    await writeAdapter(join(dir, name), { config: saving, tensors: zerosOf(tensors) });
    return openAdapter(join(dir, name));
  };

  it('are written and read, and stand in for those of the model', async () => {
    const adapter = await written('saved', { ...factors, ...head });
    expect(adapter.config).toEqual(saving);
    checkAdapter(adapter, withHead);
    expect([...savedTensors(adapter).keys()].sort()).toEqual(['classifier.bias', 'classifier.weight']);
    expect(loraNamesOf(adapter).sort()).toEqual(Object.keys(factors).sort());
  });

  it('may be brought to a model that lacks them', async () => {
    const adapter = await written('brought', { ...factors, ...head });
    expect(() => {
      checkAdapter(adapter, model);
    }).not.toThrow();
  });

  it('must have the shapes of those of the model, all of them', async () => {
    const other = { ...head, 'base_model.model.classifier.weight': [3, 4] };
    const [wrong, partial] = [
      await written('wrong', { ...factors, ...other }),
      await written('partial', { ...factors, 'base_model.model.classifier.weight': [2, 4] }),
    ];
    expect(() => {
      checkAdapter(wrong, withHead);
    }).toThrow('`base_model.model.classifier.weight` is (3, 4) where the model needs (2, 4)');
    expect(() => {
      checkAdapter(partial, withHead);
    }).toThrow('it lacks `base_model.model.classifier.bias`');
  });
});

describe('target modules', () => {
  it('are linear modules by the end of their name', () => {
    expect(adaptedModules(model, { targetModules: ['v_proj', 'self_attn.q_proj'] })).toEqual([
      'model.layers.0.self_attn.q_proj',
      'model.layers.0.self_attn.v_proj',
    ]);
  });

  it('are none that lie in a module which is held whole', () => {
    const pooled = shapes({
      'encoder.dense.weight': [4, 4],
      'pooler.dense.weight': [4, 4],
      'pooler_out.dense.weight': [4, 4],
    });
    const settings = { targetModules: ['dense'], modulesToSave: ['pooler'] };
    expect(adaptedModules(pooled, settings)).toEqual(['encoder.dense', 'pooler_out.dense']);
    expect(() => adaptedModules(pooled, { ...settings, targetModules: ['dense', 'pooler.dense'] })).toThrow(
      '`pooler.dense`',
    );
  });

  it.each(['k_proj', 'proj', 'q_norm', 'embed_tokens'])('%s is refused, and the known ones are named', (target) => {
    expect(() => adaptedModules(model, { targetModules: ['q_proj', target] })).toThrow(
      expect.objectContaining({
        message: `The model has no linear module named \`${target}\`.`,
        fix: 'Choose target modules among q_proj, v_proj.',
      }) as UserError,
    );
  });
});

describe('a new adapter', () => {
  it('has A uniform in ±1/√in, drawn in order, and B zero', () => {
    let draws = 0;
    const tensors = initialAdapter(model, config, () => (draws++ % 8) / 8);
    expect([...tensors].map(([name, { shape }]) => [name, shape])).toEqual([
      [q.a, [2, 4]],
      [q.b, [6, 2]],
      [v.a, [2, 4]],
      [v.b, [3, 2]],
    ]);
    expect(draws).toBe(16);
    expect([...tensors.get(q.a)!.data]).toEqual([-0.5, -0.375, -0.25, -0.125, 0, 0.125, 0.25, 0.375]);
    expect(tensors.get(v.b)!.data.every((value) => value === 0)).toBe(true);
  });

  it('is read back as it was written, and fits its model', async () => {
    const tensors = initialAdapter(model, config, Math.random);
    await writeAdapter(dir, { config, tensors });
    const adapter = await openAdapter(dir);
    expect(adapter.config).toEqual(config);
    expect(await loadTensors(adapter.weights, tensors.keys())).toEqual(tensors);
    expect(() => {
      checkAdapter(adapter, model);
    }).not.toThrow();
  });
});

describe('an adapter of another model', () => {
  const differing = async (entries: Record<string, number[]>): Promise<string> => {
    await writeAdapter(dir, {
      config: { ...config, baseModelNameOrPath: 'nano' },
      tensors: initialAdapter(model, config, () => 0),
    });
    const adapter = await openAdapter(dir);
    try {
      checkAdapter(adapter, shapes(entries));
    } catch (error) {
      expect(error).toBeInstanceOf(UserError);
      expect((error as UserError).fix).toContain('it names nano');
      return (error as UserError).message;
    }
    return 'fits';
  };

  it('is told by shapes', async () => {
    expect(
      await differing({
        'model.layers.0.self_attn.q_proj.weight': [8, 4],
        'model.layers.0.self_attn.v_proj.weight': [3, 4],
      }),
    ).toBe(`The adapter does not fit the model: \`${q.b}\` is (6, 2) where the model needs (8, 2).`);
  });

  it('is told by layers that only one of them has', async () => {
    expect(
      await differing({
        'model.layers.0.self_attn.q_proj.weight': [6, 4],
        'model.layers.1.self_attn.v_proj.weight': [3, 4],
      }),
    ).toMatch(
      /lacks `base_model\.model\.model\.layers\.1\..*no place for `base_model\.model\.model\.layers\.0\.self_attn\.v_proj/,
    );
  });

  it('is told by modules that the model lacks', async () => {
    expect(await differing({ 'encoder.query_proj.weight': [6, 4] })).toMatch(
      /no linear module named `q_proj`, `v_proj`/,
    );
  });
});

it('a missing weights file and a wrong config are refused by name', async () => {
  const empty = await mkdtemp(join(dir, 'empty-'));
  await expect(openAdapter(empty)).rejects.toMatchObject({
    code: 'checkpoint.missing-file',
    where: join(empty, where),
  });
  await writeFile(join(empty, where), JSON.stringify(adapterConfigToPeft(config)));
  await expect(openAdapter(empty)).rejects.toMatchObject({ where: join(empty, 'adapter_model.safetensors') });
});
