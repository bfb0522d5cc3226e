import { z } from 'zod';
import { key, refuse } from './key.js';
import { count, share } from './training.js';

/** The published pair of prompts: from a headline, and from two words. */
export const DEFAULT_TEMPLATES = {
  headline: '请根据以下新闻标题，创作一段幽默的中文文本：\n\n标题：{headline}\n\n幽默文本：',
  words: '请使用以下两个词语，创作一段幽默的中文文本：\n\n词语：{word1}、{word2}\n\n幽默文本：',
} as const;

const column = (name: string, help: string) => key(z.string().min(1).default(name), help);

/** Where rows come from, how prompts are made of them, and the one split that all stages share. */
export const dataSection = z
  .strictObject({
    dir: key(
      z.string().min(1).optional(),
      'Folder with sft_train.csv, rm_train.csv and, if there is one, rm_test.csv.',
      {
        path: true,
      },
    ),
    file: key(z.string().min(1).optional(), "One file with this stage's rows: CSV or JSON Lines.", { path: true }),
    columns: key(
      z
        .strictObject({
          headline: column('headline', 'Column of the headline, by which rows are grouped in the split.'),
          word1: column('word1', 'Column of the first word.'),
          word2: column('word2', 'Column of the second word.'),
          completion: column('joke', 'Column of the text that is learned or judged.'),
          label: column('label', 'Column that holds 1 for humorous and 0 for not.'),
        })
        .prefault({}),
      "Names of the file's columns by the part they play.",
    ),
    templates: key(
      z.record(z.string().min(1), z.string()).default({ ...DEFAULT_TEMPLATES }),
      'Prompts by name, with {column} places; every row makes one sample for each.',
    ),
    validationFraction: key(share().lt(1).default(0.05), 'Share of the rows that no stage learns from.'),
    splitSeed: key(count(0).default(1), 'Seed of the split; all stages must use the same.'),
    limit: key(count().optional(), 'Reads only this many rows, for a quick look.'),
  })
  .superRefine((data, context) => {
    if (data.dir !== undefined && data.file !== undefined) {
      refuse(context, ['file'], 'is given together with data.dir', 'give one of the two');
    }
  });
