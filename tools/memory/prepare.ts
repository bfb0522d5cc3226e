import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeRandom } from '../../bench/random-models.js';
import { classifierContext } from '../../src/rewards/classifier.js';
import type { ModelConfig } from '../../src/models/config/model-config.js';
import { causalGraph } from '../../src/training/language.js';

const assets = fileURLToPath(new URL('../../assets/', import.meta.url));

/** Writes a random model of a case's shape with the tokenizer of a shipped one. */
export async function writeCaseModel(dir: string, model: ModelConfig): Promise<void> {
  await mkdir(dir, { recursive: true });
  const context = model.kind === 'causal' ? causalGraph(model, {}).context : classifierContext(model);
  await writeRandom(dir, model, context.weights);
  const from = join(assets, model.kind === 'causal' ? 'nano-qwen3' : 'nano-deberta');
  for (const name of await readdir(from)) {
    if (/token|vocab|special|merges/.test(name)) await copyFile(join(from, name), join(dir, name));
  }
}

/** Rows of which every text fills its limit: what is measured is what is planned for. */
export async function writeCaseRows(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  const rows = Array.from({ length: 160 }, (_, i) => {
    const joke = `第${i}只猫排队买包子，说今天天气真好；`.repeat(40);
    return { cells: [`标题${i}`, `猫${i}`, `包子${i}`, joke], label: i % 2 };
  });
  const csv = (header: string, lines: readonly string[]): string => [header, ...lines].join('\n');
  const header = 'headline,word1,word2,joke';
  await writeFile(
    join(dir, 'sft_train.csv'),
    csv(
      header,
      rows.map(({ cells }) => cells.join(',')),
    ),
  );
  const labelled = rows.map(({ cells, label }) => `${cells.join(',')},${label}`);
  await writeFile(join(dir, 'rm_train.csv'), csv(`${header},label`, labelled));
}
