import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { initialAdapter, writeAdapter } from '../../src/checkpoints/adapter.js';
import type { AdapterConfig } from '../../src/checkpoints/adapter-config.js';
import { writeModelFolder } from '../../src/checkpoints/write-model-folder.js';
import type { Tensor } from '../../src/graph/tensor.js';
import type { CausalConfig } from '../../src/models/config/causal.js';
import { stream } from '../../src/random.js';
import { serializeTokenizer } from '../../src/text/tokenizer-files.js';
import { trainByteLevelBpe } from '../../src/text/train-bpe.js';
import { initialWeights } from '../../src/training/initial-weights.js';
import { causalGraph } from '../../src/training/language.js';

/** A Qwen3 that computes in no time. Weights as large as these make its logits differ enough to tell tokens apart. */
export const TINY: CausalConfig = {
  kind: 'causal',
  modelType: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  vocabSize: 320,
  hiddenSize: 16,
  intermediateSize: 32,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 8,
  hiddenAct: 'silu',
  maxPositionEmbeddings: 128,
  initializerRange: 0.3,
  rmsNormEps: 1e-6,
  rope: { type: 'default', theta: 10000 },
  tieWordEmbeddings: true,
  qkNorm: true,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  labels: [],
  attentionDropout: 0,
  bosTokenId: null,
  eosTokenIds: [319],
  padTokenId: 318,
  dtype: 'float32',
};

/** A tiny model of every family, each with switches that the others lack. */
export const TINY_FAMILIES: Readonly<Record<string, CausalConfig>> = {
  Qwen3: TINY,
  'Qwen3 with YaRN': {
    ...TINY,
    rope: {
      type: 'yarn',
      theta: 10000,
      factor: 4,
      originalMaxPositionEmbeddings: 32,
      attentionFactor: 1.14,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
    },
  },
  Qwen2: { ...TINY, modelType: 'qwen2', architecture: 'Qwen2ForCausalLM', qkNorm: false, qkvBias: true },
  'Llama 3': {
    ...TINY,
    modelType: 'llama',
    architecture: 'LlamaForCausalLM',
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    rope: {
      type: 'llama3',
      theta: 10000,
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 16,
    },
    tieWordEmbeddings: false,
    qkNorm: false,
  },
  'Llama with biases': {
    ...TINY,
    modelType: 'llama',
    architecture: 'LlamaForCausalLM',
    qkNorm: false,
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
  },
};

const TEXTS = ['标题：猫排队买包子', '笑话：猫说今天天气真好，包子不好', '词语：雨伞、键盘', '雨伞遇见键盘，都笑了'];

/** The model's random weights. */
export const tinyWeights = (seed = 1, config: CausalConfig = TINY): Map<string, Tensor<'float32'>> =>
  initialWeights(causalGraph(config, {}).context.weights, config.initializerRange, seed);

/** Writes the model with a tokenizer of its own (`</s>` is 319) into a folder. */
export async function writeTinyModel(dir: string, config: CausalConfig = TINY): Promise<void> {
  await writeModelFolder(dir, { config, tensors: tinyWeights(1, config) });
  const files = trainByteLevelBpe([...TEXTS, ...TEXTS], {
    vocabSize: TINY.vocabSize,
    specialTokens: ['<pad>', '</s>'],
    eosToken: '</s>',
    padToken: '<pad>',
  });
  for (const [name, content] of Object.entries(serializeTokenizer(files))) await writeFile(join(dir, name), content);
}

const ADAPTER: AdapterConfig = {
  r: 4,
  loraAlpha: 8,
  loraDropout: 0,
  targetModules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
  useRslora: false,
  taskType: 'CAUSAL_LM',
  baseModelNameOrPath: null,
};

/** Writes an adapter for the model that changes what it computes: neither of its factors is zero. */
export async function writeTinyAdapter(dir: string, config: CausalConfig = TINY): Promise<void> {
  const random = stream(2, 'adapter');
  const tensors = initialAdapter(tinyWeights(1, config), ADAPTER, () => random.uniform());
  for (const [name, { data }] of tensors) {
    if (name.includes('lora_B')) for (let i = 0; i < data.length; i++) data[i] = 0.3 * random.normal();
  }
  await writeAdapter(dir, { config: ADAPTER, tensors });
}
