import { encodeFloats, storedBytes } from '../src/checkpoints/stored-dtype.js';
import type { TensorSource } from '../src/checkpoints/safetensors-writer.js';
import { storedDtypeOf, writeCheckpoint } from '../src/checkpoints/write-model-folder.js';
import type { Value } from '../src/graph/graph.js';
import { elementCount } from '../src/graph/tensor.js';
import type { DebertaV2Config } from '../src/models/config/deberta-v2.js';
import { toHuggingFaceConfig, type ModelConfig } from '../src/models/config/model-config.js';
import type { CausalConfig } from '../src/models/config/causal.js';
import { stream } from '../src/random.js';
import { classifierContext } from '../src/rewards/classifier.js';
import { causalGraph } from '../src/training/language.js';

/** Four layers of the shape of Qwen3-0.6B (28 layers), with its whole vocabulary; stored as published, in bfloat16. */
export const QWEN3: CausalConfig = {
  kind: 'causal',
  modelType: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  vocabSize: 151936,
  hiddenSize: 1024,
  intermediateSize: 3072,
  numHiddenLayers: 4,
  numAttentionHeads: 16,
  numKeyValueHeads: 8,
  headDim: 128,
  hiddenAct: 'silu',
  maxPositionEmbeddings: 40960,
  initializerRange: 0.02,
  rmsNormEps: 1e-6,
  rope: { type: 'default', theta: 1e6 },
  tieWordEmbeddings: true,
  qkNorm: true,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  labels: [],
  attentionDropout: 0,
  bosTokenId: null,
  eosTokenIds: [151645],
  padTokenId: 151643,
  dtype: 'bfloat16',
};

/** Three layers of the shape of Erlangshen-DeBERTa-v2-97M-Chinese (12 layers). */
export const DEBERTA: DebertaV2Config = {
  kind: 'encoder',
  modelType: 'deberta-v2',
  architecture: 'DebertaV2ForSequenceClassification',
  vocabSize: 12800,
  hiddenSize: 768,
  intermediateSize: 3072,
  numHiddenLayers: 3,
  numAttentionHeads: 12,
  hiddenAct: 'gelu',
  hiddenDropoutProb: 0.1,
  attentionProbsDropoutProb: 0.1,
  layerNormEps: 1e-7,
  initializerRange: 0.02,
  maxPositionEmbeddings: 512,
  typeVocabSize: 0,
  positionBiasedInput: false,
  relativeAttention: true,
  maxRelativePositions: 512,
  positionBuckets: 256,
  normRelEbd: 'layer_norm',
  shareAttKey: true,
  posAttType: ['p2c', 'c2p'],
  convKernelSize: 0,
  convGroups: 1,
  convAct: 'tanh',
  poolerDropout: 0,
  poolerHiddenAct: 'gelu',
  classifierDropout: 0.1,
  labels: ['not_humorous', 'humorous'],
  legacy: true,
  tieWordEmbeddings: true,
  padTokenId: 0,
  dtype: 'float32',
};

const small = { vocabSize: 500, hiddenSize: 32, intermediateSize: 64, numHiddenLayers: 2, numAttentionHeads: 2 };
const QUICK_QWEN3: CausalConfig = {
  ...{ ...QWEN3, ...small },
  ...{ numKeyValueHeads: 1, headDim: 16, eosTokenIds: [499], padTokenId: 498 },
};
const QUICK_DEBERTA: DebertaV2Config = { ...DEBERTA, ...small, positionBuckets: 8, maxRelativePositions: 64 };

/** Makes next tokens about as uncertain as those of a trained model: some nats, not the logarithm of the vocabulary. */
const EMBEDDING_STD = 0.1;

/** Random numbers are drawn once and repeated; the period is a prime, so that no two rows of a matrix are equal. */
const PERIOD = 1_000_003;

/** Writes a causal model without a tokenizer. */
export async function writeRandomQwen3(dir: string, quick: boolean): Promise<void> {
  const config = quick ? QUICK_QWEN3 : QWEN3;
  await writeRandom(dir, config, causalGraph(config, {}).context.weights);
}

/** Writes a reward model without a tokenizer. */
export async function writeRandomDeberta(dir: string, quick: boolean): Promise<void> {
  const config = quick ? QUICK_DEBERTA : DEBERTA;
  await writeRandom(dir, config, classifierContext(config).weights);
}

/** One block of random numbers in memory, however large the model. */
export async function writeRandom(
  dir: string,
  config: ModelConfig,
  weights: ReadonlyMap<string, Value>,
): Promise<void> {
  const random = stream(0, 'benchmark');
  const normal = Float32Array.from({ length: PERIOD }, () => random.normal());
  const dtype = storedDtypeOf[config.dtype];
  const sources = Array.from(weights, ([name, value]): TensorSource => {
    const shape = value.shape as readonly number[];
    const std = name.includes('embed_tokens') ? EMBEDDING_STD : config.initializerRange;
    const block = (): Float32Array => {
      if (shape.length > 1) return normal.map((x) => std * x);
      return new Float32Array(PERIOD).fill(name.endsWith('bias') ? 0 : 1);
    };
    const length = elementCount(shape) * storedBytes(dtype);
    return { name, dtype, shape, bytes: () => repeated(encodeFloats(dtype, block()), length) };
  });
  await writeCheckpoint(dir, { json: toHuggingFaceConfig(config), sources });
}

/** `length` bytes, the block again and again. */
function* repeated(block: Uint8Array, length: number): Generator<Uint8Array> {
  for (let done = 0; done < length; done += block.length) yield block.subarray(0, length - done);
}
