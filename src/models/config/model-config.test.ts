import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../errors.js';
import type { Rope } from '../../nn/rotary.js';
import { bertFamilies, type BertArchitecture, type BertConfig } from './bert.js';
import { causalFamilies, type CausalArchitecture, type CausalConfig } from './causal.js';
import type { DebertaV2Config } from './deberta-v2.js';
import { activations, weightDtypes } from './fields.js';
import { knownArchitectures, parseModelConfig, positionLimit, toHuggingFaceConfig } from './model-config.js';

const where = 'model/config.json';
const qwen3 = (fields: object = {}): CausalConfig =>
  parseModelConfig({ architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3', ...fields }, where) as CausalConfig;
const deberta = (fields: object = {}): DebertaV2Config =>
  parseModelConfig(
    { architectures: ['DebertaV2ForMaskedLM'], model_type: 'deberta-v2', ...fields },
    where,
  ) as DebertaV2Config;

describe('Qwen3', () => {
  it('takes the defaults of transformers for what is absent', () => {
    expect(qwen3()).toMatchObject({
      vocabSize: 151936,
      headDim: 128,
      numKeyValueHeads: 32,
      rope: { type: 'default', theta: 10000 },
      rmsNormEps: 1e-6,
    });
    expect(
      qwen3({ num_attention_heads: 16, hidden_size: 512, num_key_value_heads: null, head_dim: null }),
    ).toMatchObject({
      numKeyValueHeads: 16,
      headDim: 32,
    });
  });

  it('reads the rotary base and the dtype in the old and in the new style', () => {
    const style5 = { rope_parameters: { rope_type: 'default', rope_theta: 1e6 }, dtype: 'bfloat16' };
    const style4 = { rope_theta: 1e6, rope_scaling: null, torch_dtype: 'bfloat16' };
    expect(qwen3(style5)).toEqual(qwen3(style4));
    expect(qwen3(style5)).toMatchObject({ rope: { theta: 1e6 }, dtype: 'bfloat16' });
    expect(qwen3({ rope_theta: 5e5, rope_parameters: { rope_type: 'default' } }).rope.theta).toBe(5e5);
    expect(qwen3({ torch_dtype: 'torch.float16' }).dtype).toBe('float16');
  });

  it('reads one EOS id, several, or none', () => {
    expect(qwen3({ eos_token_id: 1 }).eosTokenIds).toEqual([1]);
    expect(qwen3({ eos_token_id: [151645, 151643, 151645] }).eosTokenIds).toEqual([151645, 151643]);
    expect(qwen3({ eos_token_id: null }).eosTokenIds).toEqual([]);
  });

  it.each<[object, RegExp]>([
    [{ rope_scaling: { type: 'dynamic', factor: 4 } }, /Rotary embedding of type `dynamic` is not supported/],
    [{ rope_parameters: { rope_type: 'llama3', rope_theta: 1e6 } }, /`llama3` needs `low_freq_factor`/],
    [{ rope_parameters: { rope_type: 'longrope' } }, /`longrope` is not supported/],
    [{ rope_parameters: { partial_rotary_factor: 0.5 } }, /`partial_rotary_factor` 0.5/],
    [{ rope_scaling: { rope_type: 'linear', factor: 0.5 } }, /`rope_scaling.factor` is 0.5/],
    [{ use_sliding_window: true, max_window_layers: 8 }, /`sliding_attention` is not supported/],
    [{ layer_types: ['full_attention', 'sliding_attention'] }, /`sliding_attention`/],
    [{ hidden_act: 'gelu' }, /Activation `gelu`/],
    [{ num_key_value_heads: 5 }, /32 attention heads cannot share 5/],
    [{ head_dim: 25 }, /must be even/],
    [{ hidden_size: 'many' }, /`hidden_size` is "many"/],
    [{ vocab_size: -3 }, /`vocab_size` is -3/],
    [{ dtype: 'int8' }, /`dtype` is "int8"/],
  ])('refuses %j', (fields, message) => {
    expect(() => qwen3(fields)).toThrow(message);
    expect(() => qwen3(fields)).toThrow(UserError);
  });

  it('accepts a sliding window that no layer uses', () => {
    expect(() => qwen3({ sliding_window: 4096, use_sliding_window: false })).not.toThrow();
    const wide = {
      use_sliding_window: true,
      sliding_window: 2048,
      max_window_layers: 4,
      max_position_embeddings: 2048,
    };
    expect(() => qwen3(wide)).not.toThrow();
    expect(() => qwen3({ ...wide, sliding_window: 2047 })).toThrow(/`sliding_attention`/);
    expect(() => qwen3({ use_sliding_window: true, num_hidden_layers: 28, max_window_layers: 28 })).not.toThrow();
  });
});

describe('Qwen2 and Llama', () => {
  it('have the switches that their architecture builds in', () => {
    const qwen2 = parseModelConfig({ architectures: ['Qwen2ForCausalLM'], attention_bias: false }, where);
    expect(qwen2).toMatchObject({ qkNorm: false, qkvBias: true, outputBias: false, mlpBias: false, headDim: 128 });
    const llama = parseModelConfig({ architectures: ['LlamaForCausalLM'], hidden_size: 2048 }, where);
    expect(llama).toMatchObject({
      qkNorm: false,
      qkvBias: false,
      outputBias: false,
      numKeyValueHeads: 32,
      headDim: 64,
    });
    const biased = parseModelConfig({ model_type: 'llama', attention_bias: true, mlp_bias: true }, where);
    expect(biased).toMatchObject({ qkvBias: true, outputBias: true, mlpBias: true });
  });

  it('reads the published scaling of Llama 3.2, in the old and in the new style', () => {
    const scaling = {
      factor: 32,
      high_freq_factor: 4,
      low_freq_factor: 1,
      original_max_position_embeddings: 8192,
      rope_type: 'llama3',
    };
    const old = parseModelConfig({ model_type: 'llama', rope_theta: 5e5, rope_scaling: scaling }, where);
    const rope_parameters = { rope_theta: 5e5, ...scaling };
    expect(parseModelConfig({ model_type: 'llama', rope_parameters }, where)).toEqual(old);
    expect(old).toMatchObject({
      rope: { type: 'llama3', theta: 5e5, factor: 32, lowFreqFactor: 1, originalMaxPositionEmbeddings: 8192 },
    });
  });

  it("takes YaRN's missing settings as transformers does", () => {
    const rope_scaling = { type: 'yarn', factor: 4, original_max_position_embeddings: 32768 };
    expect(qwen3({ rope_theta: 1e6, rope_scaling }).rope).toEqual({
      type: 'yarn',
      theta: 1e6,
      factor: 4,
      originalMaxPositionEmbeddings: 32768,
      attentionFactor: 0.1 * Math.log(4) + 1,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
    });
  });
});

describe('DeBERTa-v2', () => {
  it('takes the defaults of transformers for what is absent', () => {
    expect(deberta()).toMatchObject({
      positionBiasedInput: true,
      relativeAttention: false,
      maxRelativePositions: 512,
      positionBuckets: 0,
      normRelEbd: 'none',
      posAttType: [],
      convKernelSize: 0,
      convAct: 'tanh',
      legacy: true,
      padTokenId: 0,
      labels: ['LABEL_0', 'LABEL_1'],
      classifierDropout: 0.1,
    });
  });

  it('reads the kinds of position attention as a list or as one text', () => {
    expect(deberta({ pos_att_type: 'p2c|C2P' }).posAttType).toEqual(['p2c', 'c2p']);
    expect(deberta({ pos_att_type: ['c2p'] }).posAttType).toEqual(['c2p']);
  });

  it('reads labels from id2label in the order of their index, or counts them', () => {
    expect(deberta({ id2label: { '1': 'humorous', '0': 'plain', '2': 'odd' } }).labels).toEqual([
      'plain',
      'humorous',
      'odd',
    ]);
    expect(deberta({ num_labels: 1 }).labels).toEqual(['LABEL_0']);
  });

  it.each<[object, RegExp]>([
    [{ pos_att_type: 'p2p' }, /`pos_att_type` p2p/],
    [{ hidden_size: 50, num_attention_heads: 4 }, /50 is not divisible by 4 heads/],
    [{ embedding_size: 64 }, /`embedding_size` 64/],
    [{ attention_head_size: 32 }, /`attention_head_size` 32/],
    [{ pooler_hidden_size: 32 }, /`pooler_hidden_size` 32/],
    [{ conv_kernel_size: 4 }, /must be odd/],
    [{ conv_groups: 7 }, /7 conv_groups/],
    [{ hidden_act: 'mish' }, /`hidden_act` is "mish"/],
    [{ hidden_dropout_prob: 1 }, /`hidden_dropout_prob` is 1/],
    [{ id2label: { '1': 'a' } }, /no label 0/],
    [{ id2label: {} }, /`id2label` is empty/],
    [{ num_hidden_layers: 1e12 }, /`num_hidden_layers`/],
  ])('refuses %j', (fields, message) => {
    expect(() => deberta(fields)).toThrow(message);
    expect(() => deberta(fields)).toThrow(UserError);
  });
});

describe('BERT and RoBERTa', () => {
  const bert = (fields: object = {}) => parseModelConfig({ architectures: ['BertForMaskedLM'], ...fields }, where);
  const roberta = (fields: object = {}) => parseModelConfig({ architectures: ['RobertaModel'], ...fields }, where);

  it('take the defaults of transformers for what is absent, and have positions of their own', () => {
    expect(bert()).toMatchObject({ vocabSize: 30522, padTokenId: 0, layerNormEps: 1e-12, classifierDropout: 0.1 });
    expect(positionLimit(bert())).toBe(512);
    expect(roberta()).toMatchObject({ vocabSize: 50265, padTokenId: 1, architecture: 'RobertaModel' });
    expect(positionLimit(roberta({ max_position_embeddings: 514 }))).toBe(512);
  });

  it('goes by the architecture that a checkpoint of pre-training can do without its second head', () => {
    const { architecture } = parseModelConfig({ architectures: ['BertForPreTraining'] }, where);
    expect(architecture).toBe('BertForMaskedLM');
  });

  it.each<[object, RegExp]>([
    [{ position_embedding_type: 'relative_key' }, /`position_embedding_type` relative_key/],
    [{ is_decoder: true }, /`is_decoder`/],
    [{ hidden_size: 50, num_attention_heads: 4 }, /50 is not divisible by 4 heads/],
    [{ type_vocab_size: 0 }, /`type_vocab_size` is 0/],
  ])('refuses %j', (fields, message) => {
    expect(() => bert(fields)).toThrow(message);
    expect(() => bert(fields)).toThrow(UserError);
  });

  it('refuses a RoBERTa whose positions begin nowhere', () => {
    expect(() => roberta({ pad_token_id: null })).toThrow(/`pad_token_id` null/);
    expect(() => roberta({ pad_token_id: 600 })).toThrow(/there are 512/);
  });
});

describe('architectures', () => {
  it('names the known ones when it meets another', () => {
    const error = (() => {
      try {
        return parseModelConfig({ architectures: ['LlamaForCausalML'], model_type: 'llama' }, where);
      } catch (caught) {
        return caught;
      }
    })();
    expect(error).toBeInstanceOf(UserError);
    expect(error).toMatchObject({ where, message: expect.stringContaining('LlamaForCausalML') as string });
    expect((error as UserError).fix).toContain('one of these: LlamaForCausalLM, ');
    for (const known of knownArchitectures) expect((error as UserError).fix).toContain(known);
    expect(() => parseModelConfig({}, where)).toThrow(/of model type \(none\)/);
    expect(() => parseModelConfig([], where)).toThrow(UserError);
  });

  it('goes by the model type where none is named', () => {
    expect(parseModelConfig({ model_type: 'qwen3' }, where).architecture).toBe('Qwen3ForCausalLM');
    expect(parseModelConfig({ model_type: 'llama' }, where).architecture).toBe('LlamaForCausalLM');
    expect(parseModelConfig({ model_type: 'deberta-v2' }, where).architecture).toBe('DebertaV2Model');
  });
});

const ids = fc.option(fc.nat(999));
const dtype = fc.constantFrom(...weightDtypes);
const size = fc.integer({ min: 1, max: 64 });
const fraction = fc.double({ min: 0, max: 0.9, noNaN: true });
const positive = fc.double({ min: 1e-12, max: 1e7, noNaN: true });

const labels = fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 12 });
const factor = fc.double({ min: 1, max: 64, noNaN: true });
const rope: fc.Arbitrary<Rope> = fc.oneof(
  fc.record({ type: fc.constant('default' as const), theta: positive }),
  fc.record({ type: fc.constant('linear' as const), theta: positive, factor }),
  fc.record({
    type: fc.constant('llama3' as const),
    theta: positive,
    factor,
    lowFreqFactor: fc.constantFrom(0.5, 1),
    highFreqFactor: fc.constantFrom(2, 4),
    originalMaxPositionEmbeddings: size,
  }),
  fc.record({
    type: fc.constant('yarn' as const),
    theta: positive,
    factor,
    originalMaxPositionEmbeddings: size,
    attentionFactor: positive,
    betaFast: positive,
    betaSlow: positive,
    truncate: fc.boolean(),
  }),
);

/** The switches that a family's config.json can say. */
const switchesOf = (modelType: CausalConfig['modelType'], attention: boolean, mlp: boolean) =>
  modelType === 'qwen2'
    ? { qkNorm: false, qkvBias: true, outputBias: false, mlpBias: false }
    : {
        qkNorm: modelType === 'qwen3',
        qkvBias: attention,
        outputBias: attention,
        mlpBias: modelType === 'llama' && mlp,
      };

const causalArbitrary: fc.Arbitrary<CausalConfig> = fc
  .record({
    modelType: fc.constantFrom('qwen3' as const, 'qwen2' as const, 'llama' as const),
    head: fc.constantFrom('CausalLM' as const, 'SequenceClassification' as const),
    groups: fc.integer({ min: 1, max: 4 }),
    half: size,
    attention: fc.boolean(),
    mlp: fc.boolean(),
    chosen: labels,
  })
  .chain(({ modelType, head, groups, half, attention, mlp, chosen }) =>
    fc.record({
      kind: fc.constant('causal' as const),
      modelType: fc.constant(modelType),
      architecture: fc.constant<CausalArchitecture>(`${causalFamilies[modelType]}For${head}`),
      vocabSize: size,
      hiddenSize: size,
      intermediateSize: size,
      numHiddenLayers: size,
      numAttentionHeads: fc.constant(groups * 3),
      numKeyValueHeads: fc.constant(groups),
      headDim: fc.constant(half * 2),
      hiddenAct: fc.constant('silu' as const),
      maxPositionEmbeddings: size,
      initializerRange: fraction,
      rmsNormEps: positive,
      rope,
      tieWordEmbeddings: fc.boolean(),
      qkNorm: fc.constant(switchesOf(modelType, attention, mlp).qkNorm),
      qkvBias: fc.constant(switchesOf(modelType, attention, mlp).qkvBias),
      outputBias: fc.constant(switchesOf(modelType, attention, mlp).outputBias),
      mlpBias: fc.constant(switchesOf(modelType, attention, mlp).mlpBias),
      attentionDropout: fraction,
      labels: fc.constant(head === 'CausalLM' ? [] : chosen),
      bosTokenId: ids,
      eosTokenIds: fc.uniqueArray(fc.nat(999), { maxLength: 3 }),
      padTokenId: ids,
      dtype,
    }),
  );

const debertaArbitrary: fc.Arbitrary<DebertaV2Config> = fc
  .record({ heads: fc.integer({ min: 1, max: 4 }), headSize: size })
  .chain(({ heads, headSize }) =>
    fc.record({
      kind: fc.constant('encoder' as const),
      modelType: fc.constant('deberta-v2' as const),
      architecture: fc.constantFrom('DebertaV2ForSequenceClassification', 'DebertaV2ForMaskedLM', 'DebertaV2Model'),
      vocabSize: size,
      hiddenSize: fc.constant(heads * headSize),
      intermediateSize: size,
      numHiddenLayers: size,
      numAttentionHeads: fc.constant(heads),
      hiddenAct: fc.constantFrom(...activations),
      hiddenDropoutProb: fraction,
      attentionProbsDropoutProb: fraction,
      layerNormEps: positive,
      initializerRange: fraction,
      maxPositionEmbeddings: size,
      typeVocabSize: fc.nat(2),
      positionBiasedInput: fc.boolean(),
      relativeAttention: fc.boolean(),
      maxRelativePositions: size,
      positionBuckets: fc.nat(64),
      normRelEbd: fc.constantFrom('none', 'layer_norm'),
      shareAttKey: fc.boolean(),
      posAttType: fc.subarray(['c2p', 'p2c'] as const),
      convKernelSize: fc.constantFrom(1, 3, 5),
      convGroups: fc.constant(headSize),
      convAct: fc.constantFrom(...activations),
      poolerDropout: fraction,
      poolerHiddenAct: fc.constantFrom(...activations),
      classifierDropout: fraction,
      labels,
      legacy: fc.boolean(),
      tieWordEmbeddings: fc.boolean(),
      padTokenId: ids,
      dtype,
    }),
  );

const bertArbitrary: fc.Arbitrary<BertConfig> = fc
  .record({
    modelType: fc.constantFrom('bert' as const, 'roberta' as const),
    head: fc.constantFrom('ForSequenceClassification' as const, 'ForMaskedLM' as const, 'Model' as const),
    heads: fc.integer({ min: 1, max: 4 }),
    headSize: size,
    padTokenId: fc.nat(9),
  })
  .chain(({ modelType, head, heads, headSize, padTokenId }) =>
    fc.record({
      kind: fc.constant('encoder' as const),
      modelType: fc.constant(modelType),
      architecture: fc.constant<BertArchitecture>(`${bertFamilies[modelType]}${head}`),
      vocabSize: size,
      hiddenSize: fc.constant(heads * headSize),
      intermediateSize: size,
      numHiddenLayers: size,
      numAttentionHeads: fc.constant(heads),
      hiddenAct: fc.constantFrom(...activations),
      hiddenDropoutProb: fraction,
      attentionProbsDropoutProb: fraction,
      layerNormEps: positive,
      initializerRange: fraction,
      maxPositionEmbeddings: size.map((positions) => positions + 10),
      typeVocabSize: size,
      classifierDropout: fraction,
      labels,
      tieWordEmbeddings: fc.boolean(),
      padTokenId: fc.constant(padTokenId),
      dtype,
    }),
  );

it('what is written as config.json is read back the same', () => {
  fc.assert(
    fc.property(fc.oneof(causalArbitrary, debertaArbitrary, bertArbitrary), (config) => {
      const text = JSON.stringify(toHuggingFaceConfig(config));
      expect(parseModelConfig(JSON.parse(text), where)).toEqual(config);
    }),
  );
});

it('any JSON gives a config or a UserError, never anything else', () => {
  const keys = Object.keys({
    ...toHuggingFaceConfig(qwen3()),
    ...toHuggingFaceConfig(deberta()),
    ...toHuggingFaceConfig(parseModelConfig({ model_type: 'roberta' }, where)),
    ...toHuggingFaceConfig(parseModelConfig({ model_type: 'llama' }, where)),
    rope_scaling: null,
    num_labels: 1,
  });
  const fields = fc.dictionary(fc.constantFrom(...keys), fc.jsonValue({ maxDepth: 2 }));
  fc.assert(
    fc.property(fields, fc.constantFrom(...knownArchitectures), (given, architecture) => {
      try {
        parseModelConfig({ architectures: [architecture], ...given }, where);
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
      }
    }),
  );
});
