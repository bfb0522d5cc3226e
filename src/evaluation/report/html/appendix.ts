import { formatSetting } from '../format.js';
import type { Report } from '../input.js';
import { html, type Html } from '../markup.js';

/** Notes, and what it takes to repeat the run. */
export function appendixSections({ notes, settings, versions, commands }: Report): Html | undefined {
  const hasSettings = Object.keys(settings).length > 0;
  const hasVersions = Object.keys(versions).length > 0;
  if (notes.length === 0 && !hasSettings && !hasVersions && commands.length === 0) return undefined;
  return html`<h2 id="repeat">How to repeat it</h2>
    ${commands.length > 0 && html`<pre>${commands.join('\n')}</pre>`} ${notes.map((note) => html`<p>${note}</p>`)}
    ${
      hasSettings &&
      html`<h3>Settings</h3>
        <div class="settings">
          ${Object.entries(settings).map(
            ([name, entries]) =>
              html`<section>
                <h3>${name}</h3>
                ${definitions(entries)}
              </section>`,
          )}
        </div>`
    }
    ${
      hasVersions &&
      html`<h3>Versions</h3>
        <div class="settings">${definitions(versions)}</div>`
    }`;
}

function definitions(entries: Record<string, unknown>): Html {
  return html`<dl>
    ${Object.entries(entries).map(
      ([key, value]) =>
        html`<dt>${key}</dt>
          <dd class="value">${formatSetting(value)}</dd>`,
    )}
  </dl>`;
}
