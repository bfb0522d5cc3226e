import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { writeModelFolder } from '../../src/checkpoints/write-model-folder.js';
import type { DebertaV2Config } from '../../src/models/config/deberta-v2.js';
import type { CausalConfig } from '../../src/models/config/causal.js';
import { classifierContext } from '../../src/rewards/classifier.js';
import { buildWordPiece } from '../../src/text/build-word-piece.js';
import { serializeTokenizer, type TokenizerFiles } from '../../src/text/tokenizer-files.js';
import { trainByteLevelBpe } from '../../src/text/train-bpe.js';
import { initialWeights } from '../../src/training/initial-weights.js';
import { causalGraph, maskedGraph } from '../../src/training/language.js';
import { TINY_CLASSIFIER } from './tiny-encoder.js';
import { TINY } from './tiny-model.js';

/** The dataset that ships with the project. */
export const MINI_HUMOR = fileURLToPath(new URL('../../assets/mini-humor', import.meta.url));

const labelledRow = z.object({
  headline: z.string(),
  word1: z.string(),
  word2: z.string(),
  joke: z.string(),
  label: z.enum(['0', '1']),
});
export type MiniRow = z.output<typeof labelledRow>;

/** The first rows of `rm_train.csv`; those with label 1 are the rows of `sft_train.csv`. */
export function miniRows(count: number): MiniRow[] {
  const table: unknown = parse(readFileSync(join(MINI_HUMOR, 'rm_train.csv')), { columns: true, bom: true });
  return z.array(labelledRow).parse(table).slice(0, count);
}

const csv = (columns: readonly (keyof MiniRow)[], rows: readonly MiniRow[]): string =>
  [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((cells) => cells.join(',')).join('\n');

/** Writes rows as the two files of a data folder: `sft_train.csv` with the jokes, `rm_train.csv` with all. */
export async function writeMiniData(dir: string, rows: readonly MiniRow[]): Promise<void> {
  await mkdir(dir, { recursive: true });
  const columns = ['headline', 'word1', 'word2', 'joke'] as const;
  const jokes = rows.filter(({ label }) => label === '1');
  await writeFile(join(dir, 'sft_train.csv'), csv(columns, jokes));
  await writeFile(join(dir, 'rm_train.csv'), csv([...columns, 'label'], rows));
}

const textsOf = (rows: readonly MiniRow[]): string[] => [
  '请根据以下新闻标题，创作一段幽默的中文文本：使用两个词语、',
  ...rows.flatMap(({ headline, joke }) => [headline, joke]),
];

async function writeTokenizer(dir: string, files: TokenizerFiles): Promise<void> {
  for (const [name, content] of Object.entries(serializeTokenizer(files))) await writeFile(join(dir, name), content);
}

/**
 * Writes a random Qwen3 whose tokenizer was trained on the rows: it writes their characters. One in ten of its tokens
 * ends a text, so that some texts end and others are cut.
 */
export async function writeMiniPolicy(dir: string, rows: readonly MiniRow[]): Promise<void> {
  const special = ['<pad>', '</s>'];
  const options = { vocabSize: 700, specialTokens: special, eosToken: '</s>', padToken: '<pad>' };
  const files = trainByteLevelBpe(textsOf(rows), options);
  const vocabSize = Object.keys(files.tokenizer.model.vocab).length + special.length;
  const endings = Array.from({ length: vocabSize }, (_, id) => id).filter((id) => id % 10 === 0 && id > 256);
  const config: CausalConfig = {
    ...TINY,
    vocabSize,
    hiddenSize: 32,
    intermediateSize: 64,
    headDim: 16,
    maxPositionEmbeddings: 256,
    initializerRange: 0.15,
    eosTokenIds: [vocabSize - 1, ...endings],
    padTokenId: vocabSize - 2,
  };
  const tensors = initialWeights(causalGraph(config, {}).context.weights, config.initializerRange, 1);
  await writeModelFolder(dir, { config, tensors });
  await writeTokenizer(dir, files);
}

/** Writes a random DeBERTa-v2 with a word for each character of the rows: a reward model, or an encoder to make one of. */
export async function writeMiniEncoder(
  dir: string,
  rows: readonly MiniRow[],
  head: 'classifier' | 'masked',
): Promise<void> {
  const files = buildWordPiece(textsOf(rows), { vocabSize: 1500 });
  const config: DebertaV2Config = {
    ...TINY_CLASSIFIER,
    architecture: head === 'classifier' ? 'DebertaV2ForSequenceClassification' : 'DebertaV2ForMaskedLM',
    vocabSize: Object.keys(files.tokenizer.model.vocab).length,
    hiddenSize: 32,
    intermediateSize: 64,
    maxPositionEmbeddings: 256,
  };
  const { weights } = head === 'classifier' ? classifierContext(config) : maskedGraph(config, {}).context;
  await writeModelFolder(dir, { config, tensors: initialWeights(weights, config.initializerRange, 1) });
  await writeTokenizer(dir, files);
}
