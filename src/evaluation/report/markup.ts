/** Finished HTML. Made by the `html` template, or by `trusted` from markup that this program wrote itself. */
export class Html {
  constructor(readonly text: string) {}
}

export type HtmlValue = Html | string | number | null | undefined | false | readonly HtmlValue[];

/** A template whose values are escaped, except finished HTML; lists are joined, null, undefined and false vanish. */
export function html(parts: TemplateStringsArray, ...values: HtmlValue[]): Html {
  return new Html(parts.reduce((text, part, i) => text + render(values[i - 1]) + part));
}

/** Markup that needs no escaping, because no text from outside reaches it unescaped. */
export function trusted(markup: string): Html {
  return new Html(markup);
}

/** Text for element content and quoted attributes. What cannot be seen or is not allowed in HTML is made visible. */
export function escapeHtml(text: string): string {
  return visible(text).replace(/[&<>"'`]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Control characters as their pictures (␀ for NUL), lone surrogates as U+FFFD; tabs and line breaks stay. */
export function visible(text: string): string {
  return text
    .replace(/\r\n?/g, '\n')
    .replace(/[^\P{Cc}\t\n]/gu, (control) => {
      const code = control.charCodeAt(0);
      return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? '\u2421' : '\uFFFD';
    })
    .replace(/\p{Cs}/gu, '\uFFFD');
}

function render(value: HtmlValue): string {
  if (value === null || value === undefined || value === false) return '';
  if (value instanceof Html) return value.text;
  if (typeof value === 'string') return escapeHtml(value);
  if (typeof value === 'number') return String(value);
  return value.map(render).join('');
}
