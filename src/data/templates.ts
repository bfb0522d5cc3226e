export { DEFAULT_TEMPLATES } from '../config/data.js';
import { plainPrompt } from '../config/messages.js';
import { UserError } from '../errors.js';
import { didYouMean } from './nearest.js';
import { placeOf, type Row } from './row.js';

/** Name → text with `{column}` places. */
export type Templates = Readonly<Record<string, string>>;

/** A prompt and the template that made it. */
export interface Prompt {
  readonly template: string;
  readonly prompt: string;
}

const PLACE = /\{([^{}\n]+)\}/gu;

/** The names of the places of a template, each once, in order. */
export function placesOf(template: string): string[] {
  return [...new Set(Array.from(template.matchAll(PLACE), (match) => match[1]!.trim()))];
}

/**
 * Refuses templates that cannot be filled from `columns`.
 *
 * @param file that has the columns, for errors
 * @throws UserError for no template at all, one without a place, or a place that is not a column.
 */
export function checkTemplates(templates: Templates, columns: readonly string[], file?: string): void {
  if (Object.keys(templates).length === 0) {
    throw new UserError({
      code: 'template.none',
      message: 'There is no prompt template.',
      where: 'data.templates',
      fix: 'Give at least one, for example headline: "标题：{headline}\\n笑话：", or leave data.templates out.',
    });
  }
  for (const [name, text] of Object.entries(templates)) {
    const places = placesOf(text);
    if (places.length === 0) {
      throw new UserError({
        code: 'template.no-place',
        message: `The template has no {column} place: ${JSON.stringify(text)}.`,
        where: `data.templates.${name}`,
        fix: 'Without a place every row would get the same prompt; put in, for example, {headline}.',
      });
    }
    const unknown = places.find((place) => !columns.includes(place));
    if (unknown !== undefined) throw unknownPlace(unknown, columns, `data.templates.${name}`, file && `${file}:1`);
  }
}

/** The same for a file's rows, of which conversations need no template. */
export function checkTemplatesFor(
  templates: Templates,
  {
    columns,
    rows,
    file,
  }: { readonly columns: readonly string[]; readonly rows: readonly Row[]; readonly file: string },
): void {
  if (rows.some(({ messages }) => messages === undefined)) checkTemplates(templates, columns, file);
}

/**
 * Fills the places of a template.
 *
 * @throws UserError for a place that `fields` does not have; `where` names the template in it.
 */
export function renderPrompt(template: string, fields: Readonly<Record<string, string>>, where?: string): string {
  return template.replace(PLACE, (_, place: string) => {
    const name = place.trim();
    if (!Object.hasOwn(fields, name)) throw unknownPlace(name, Object.keys(fields), where);
    return fields[name]!;
  });
}

/**
 * The prompts of a row: one of every template whose places the row has values for. A row with a headline and no words
 * makes no words prompt. A conversation has one, named `messages`: what was said last, in plain words.
 *
 * @throws UserError when no template can be filled.
 */
export function promptsOf(row: Row, templates: Templates): Prompt[] {
  if (row.messages !== undefined) return [{ template: 'messages', prompt: plainPrompt(row.messages) }];
  const prompts = Object.entries(templates)
    .filter(([, text]) => placesOf(text).every((place) => (row.fields[place] ?? '').trim() !== ''))
    .map(([template, text]) => ({ template, prompt: renderPrompt(text, row.fields, `data.templates.${template}`) }));
  if (prompts.length > 0) return prompts;
  throw new UserError({
    code: 'data.no-prompt',
    message: `The row fills none of the templates (${Object.keys(templates).join(', ')}): in each, a column it needs is empty.`,
    where: placeOf(row),
    fix: 'Fill in the columns of at least one template, or remove the row.',
  });
}

/** The words that a prompt asks its text to use: those of the roles `word1` and `word2` that its template, if any, names. */
export function wordsOf(template: string | undefined, { fields }: Row): string[] {
  const places = placesOf(template ?? '');
  return ['word1', 'word2'].flatMap((role) => (places.includes(role) ? [fields[role]!] : []));
}

/**
 * The prompt by the first template that asks for nothing but the given columns.
 *
 * @throws UserError when there is none
 */
export function promptOf(fields: Readonly<Record<string, string>>, templates: Templates): string {
  const fitting = Object.entries(templates).find(([, text]) => {
    const places = placesOf(text);
    return places.length > 0 && places.every((place) => Object.hasOwn(fields, place));
  });
  if (fitting !== undefined) return renderPrompt(fitting[1], fields, `data.templates.${fitting[0]}`);
  const given = Object.keys(fields);
  throw new UserError({
    code: 'template.none-fits',
    message: `No template can be filled from ${given.join(' and ')} alone; there are ${Object.keys(templates).join(', ')}.`,
    where: 'data.templates',
    fix: `Add one with ${given.map((name) => `{${name}}`).join(' and ')} and no other place, or give the whole prompt.`,
  });
}

/** @param where the header that lacks the column, if it is known; otherwise the template itself. */
function unknownPlace(name: string, columns: readonly string[], template?: string, where = template): UserError {
  return new UserError({
    code: 'template.unknown-place',
    message: `The template${where === template ? '' : ` ${template!}`} asks for {${name}}, and the data has no such column; it has ${columns.join(', ')}.`,
    ...(where === undefined ? {} : { where }),
    fix: `${didYouMean(name, columns)}Use the name of a column, or map it with data.columns.`,
  });
}
