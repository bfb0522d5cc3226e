import { setImmediate } from 'node:timers/promises';
import { completionOf, type Row } from '../data/row.js';
import { promptsOf, type Templates } from '../data/templates.js';
import type { Tokenizer } from '../text/tokenizer.js';

/** A row's prompt by one template and its completion as one text, `[CLS] prompt+completion [SEP]`. */
export interface LabelledText {
  /** Number of its row. */
  readonly row: number;
  /** Name of the template. */
  readonly template: string;
  readonly label: 0 | 1;
  readonly inputIds: readonly number[];
  /** Its end was cut off. */
  readonly truncated: boolean;
}

/** Texts between two turns of the event loop. */
const AT_ONCE = 200;

/**
 * The texts of labelled rows, one for each template that the row fills, cut at the end to `maxLength` tokens.
 *
 * @throws UserError for a row that fills no template
 */
export async function labelledTexts(
  rows: readonly Row[],
  options: { readonly templates: Templates; readonly tokenizer: Tokenizer; readonly maxLength: number },
): Promise<LabelledText[]> {
  const { templates, tokenizer, maxLength } = options;
  const texts: LabelledText[] = [];
  for (const [number, row] of rows.entries()) {
    for (const { template, prompt } of promptsOf(row, templates)) {
      const whole = tokenizer.encode(prompt + completionOf(row));
      const truncated = whole.length > maxLength;
      const inputIds = truncated ? tokenizer.encode(prompt + completionOf(row), { maxLength }) : whole;
      texts.push({ row: number, template, label: row.label!, inputIds, truncated });
      if (texts.length % AT_ONCE === 0) await setImmediate();
    }
  }
  return texts;
}
