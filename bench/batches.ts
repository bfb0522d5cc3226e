import { DEFAULT_TEMPLATES } from '../src/config/data.js';
import { readRows } from '../src/data/read.js';
import { completionOf, placeOf, type Row } from '../src/data/row.js';
import { promptsOf, wordsOf } from '../src/data/templates.js';
import { requireTokenizer, type Policy } from '../src/generation/policy.js';
import { stream } from '../src/random.js';
import { textLimit } from '../src/rewards/reward-model.js';
import type { RolloutPrompt } from '../src/stages/grpo/rollout.js';
import { encodePair } from '../src/text/encode-pair.js';
import { loadTokenizer } from '../src/text/load-tokenizer.js';
import { labelledTexts } from '../src/training/labelled-texts.js';
import type { ModelConfig } from '../src/models/config/model-config.js';
import type { MaskedSequence } from '../src/models/packed-tokens.js';
import type { Setup } from './work.js';

/** Rows of a file that are taken, in a fixed random order. */
const ROWS = 512;

/** Lengths of the published data: SFT samples padded in batches of 4, and prompts under the tokenizer of Qwen3. */
const SAMPLE = { length: 76, supervised: 30 };
const PROMPT_LENGTH = SAMPLE.length - SAMPLE.supervised;
/** 16 texts of the reward model, one token a character, evenly from the published lengths. */
const TEXT_LENGTHS = [52, 55, 57, 59, 61, 63, 66, 68, 71, 75, 80, 87, 93, 99, 106, 114];

export interface Batches<T> {
  readonly description: string;
  batch(step: number): T;
}

/** Batches of SFT samples: from rows where there are some, else random ids of the published lengths, all equally long. */
export async function sftBatches(
  { csv, quick }: Setup,
  policy: Policy,
  section: { readonly batchSize: number; readonly maxLength: number },
): Promise<Batches<readonly MaskedSequence[]>> {
  const { batchSize, maxLength } = section;
  if (csv === undefined) {
    const { length, supervised } = quick ? { length: 12, supervised: 5 } : SAMPLE;
    const samples = Array.from({ length: batchSize }, (_, row): MaskedSequence => ({
      inputIds: randomIds(length, policy.config.vocabSize, row),
      completionMask: Array.from({ length }, (_unused, at) => (at < length - supervised ? 0 : 1)),
    }));
    const description = `batch ${batchSize} × ${length} random tokens, ${supervised} of them supervised`;
    return { description, batch: () => samples };
  }
  const tokenizer = requireTokenizer(policy);
  const samples = (await shuffledRows(csv)).flatMap((row) =>
    promptsOf(row, DEFAULT_TEMPLATES).map(({ prompt }) =>
      encodePair(tokenizer, prompt, completionOf(row), {
        eosId: tokenizer.requireSpecial('eos', policy.folder.dir),
        maxLength,
        where: placeOf(row),
      }),
    ),
  );
  return {
    description: `batch ${batchSize} of ${csv}`,
    batch: (step) => taken(samples, step, batchSize),
  };
}

/** Texts with labels for a reward model. */
export async function rmBatches(
  { csv, quick, rm }: Setup,
  config: ModelConfig,
  section: { readonly batchSize: number; readonly maxLength: number },
): Promise<Batches<{ sequences: readonly (readonly number[])[]; labels: readonly (0 | 1)[] }>> {
  const { batchSize } = section;
  if (csv === undefined) {
    const lengths = quick ? [7, 9] : TEXT_LENGTHS;
    const sequences = lengths.map((length, row) => randomIds(length, config.vocabSize, row));
    const labels = lengths.map((_, row): 0 | 1 => (row % 2 === 0 ? 0 : 1));
    const description = `batch ${lengths.length} of ${Math.min(...lengths)} to ${Math.max(...lengths)} random tokens`;
    return { description, batch: () => ({ sequences, labels }) };
  }
  const texts = await labelledTexts(
    (await shuffledRows(csv)).map((row) => ({ ...row, label: row.label ?? 1 })),
    {
      templates: DEFAULT_TEMPLATES,
      tokenizer: await loadTokenizer(rm),
      maxLength: textLimit(config, section.maxLength),
    },
  );
  return {
    description: `batch ${batchSize} of ${csv}`,
    batch: (step) => {
      const chosen = taken(texts, step, batchSize);
      return { sequences: chosen.map(({ inputIds }) => inputIds), labels: chosen.map(({ label }) => label) };
    },
  };
}

/** Prompts to decode from. */
export async function prompts({ csv, quick }: Setup, policy: Policy, count: number): Promise<number[][]> {
  if (csv === undefined) {
    const length = quick ? 7 : PROMPT_LENGTH;
    return Array.from({ length: count }, (_, row) => randomIds(length, policy.config.vocabSize, row));
  }
  const tokenizer = requireTokenizer(policy);
  const rows = await shuffledRows(csv);
  const texts = rows.flatMap((row) => promptsOf(row, DEFAULT_TEMPLATES).map(({ prompt }) => prompt));
  return taken(texts, 0, count).map((text) => tokenizer.encode(text));
}

/** Prompts of GRPO, from rows. */
export async function rolloutPrompts({ csv }: Setup): Promise<RolloutPrompt[]> {
  if (csv === undefined) throw new Error('rollouts need rows');
  const rows = await shuffledRows(csv);
  const templates: Readonly<Record<string, string>> = DEFAULT_TEMPLATES;
  const asked = rows.flatMap((row) =>
    promptsOf(row, DEFAULT_TEMPLATES).map((each) => {
      return {
        ...each,
        plainPrompt: each.prompt,
        words: wordsOf(templates[each.template] ?? '', row),
        fields: row.fields,
      };
    }),
  );
  return asked.map((each, index) => ({ ...each, index }));
}

async function shuffledRows(csv: string): Promise<Row[]> {
  const { rows } = await readRows(csv);
  const order = stream(0, 'rows').shuffle(rows.length);
  return Array.from(order.subarray(0, ROWS), (row) => rows[row]!);
}

/** Batch number `step` of a list that is gone through again and again. */
const taken = <T>(items: readonly T[], step: number, count: number): T[] =>
  Array.from({ length: count }, (_, i) => items[(step * count + i) % items.length]!);

function randomIds(length: number, vocabSize: number, row: number): number[] {
  const random = stream(0, 'tokens', row);
  return Array.from({ length }, () => random.integer(vocabSize));
}
