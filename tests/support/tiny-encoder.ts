import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeModelFolder } from '../../src/checkpoints/write-model-folder.js';
import type { BertConfig } from '../../src/models/config/bert.js';
import type { DebertaV2Config } from '../../src/models/config/deberta-v2.js';
import type { EncoderConfig } from '../../src/models/config/model-config.js';
import { classifierContext } from '../../src/rewards/classifier.js';
import { buildWordPiece } from '../../src/text/build-word-piece.js';
import { serializeTokenizer } from '../../src/text/tokenizer-files.js';
import { initialWeights } from '../../src/training/initial-weights.js';
import { maskedGraph } from '../../src/training/language.js';

const TEXTS = [
  '请根据标题写一段幽默的文本：用两个词语，',
  '猫狗兔鸡排队买包子雨伞键盘石头月亮，笑会议今天开了。0123456789',
];

/** A DeBERTa-v2 classifier that computes in no time, with a word for every character of the texts above. */
export const TINY_CLASSIFIER: DebertaV2Config = {
  kind: 'encoder',
  modelType: 'deberta-v2',
  architecture: 'DebertaV2ForSequenceClassification',
  vocabSize: 256,
  hiddenSize: 16,
  intermediateSize: 32,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  hiddenAct: 'gelu',
  hiddenDropoutProb: 0.1,
  attentionProbsDropoutProb: 0.1,
  layerNormEps: 1e-7,
  initializerRange: 0.2,
  maxPositionEmbeddings: 64,
  typeVocabSize: 0,
  positionBiasedInput: false,
  relativeAttention: true,
  maxRelativePositions: 64,
  positionBuckets: 8,
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

/** Writes a random classifier into a folder, with a tokenizer unless told otherwise. */
export async function writeTinyClassifier(
  dir: string,
  { changes = {}, tokenizer = true }: { changes?: Partial<DebertaV2Config>; tokenizer?: boolean } = {},
): Promise<void> {
  const config = { ...TINY_CLASSIFIER, ...changes };
  const tensors = initialWeights(classifierContext(config).weights, config.initializerRange, 1);
  await writeModelFolder(dir, { config, tensors });
  if (tokenizer) await writeTinyWordPiece(dir);
}

/** A masked-language model: an encoder without a classifier's head. */
const TINY_ENCODER: DebertaV2Config = { ...TINY_CLASSIFIER, architecture: 'DebertaV2ForMaskedLM' };

/** The same size of BERT and RoBERTa. */
export const TINY_BERT: BertConfig = {
  kind: 'encoder',
  modelType: 'bert',
  architecture: 'BertForMaskedLM',
  vocabSize: 256,
  hiddenSize: 16,
  intermediateSize: 32,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  hiddenAct: 'gelu',
  hiddenDropoutProb: 0.1,
  attentionProbsDropoutProb: 0.1,
  layerNormEps: 1e-12,
  initializerRange: 0.2,
  maxPositionEmbeddings: 64,
  typeVocabSize: 2,
  classifierDropout: 0.1,
  labels: ['LABEL_0', 'LABEL_1'],
  tieWordEmbeddings: true,
  padTokenId: 0,
  dtype: 'float32',
};
export const TINY_ROBERTA: BertConfig = { ...TINY_BERT, modelType: 'roberta', architecture: 'RobertaForMaskedLM' };

/** Writes a random masked-language model with its tokenizer into a folder. */
export async function writeTinyEncoder(dir: string, config: EncoderConfig = TINY_ENCODER): Promise<void> {
  const tensors = initialWeights(maskedGraph(config, {}).context.weights, config.initializerRange, 1);
  await writeModelFolder(dir, { config, tensors });
  await writeTinyWordPiece(dir);
}

/** Writes the tokenizer of the models above; it has fewer entries than they have embeddings. */
export async function writeTinyWordPiece(dir: string): Promise<void> {
  const files = buildWordPiece(TEXTS, { vocabSize: TINY_CLASSIFIER.vocabSize });
  for (const [name, content] of Object.entries(serializeTokenizer(files))) await writeFile(join(dir, name), content);
}
