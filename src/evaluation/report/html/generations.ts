import { modelIndex } from '../charts.js';
import { formatNumber } from '../format.js';
import type { Report } from '../input.js';
import { html, type Html } from '../markup.js';
import { color } from '../svg.js';

/** Texts of every model side by side, prompt by prompt. */
export function generationsSection({ generations, reward }: Report): Html | undefined {
  if (generations.length === 0) return undefined;
  const models =
    reward?.models ??
    [...new Set(generations.flatMap(({ texts }) => texts.map(({ model }) => model)))].map((name) => ({ name }));
  return html`<h2 id="generations">Side by side, on unseen prompts</h2>
    ${generations.map(
      ({ prompt, texts }) =>
        html`<article class="generation">
          <div class="prompt">${prompt.trim().replace(/\n+/g, '\n')}</div>
          <div class="texts">
            ${texts.map(
              ({ model, text, reward: earned, finishReason }) =>
                html`<div class="text" style="border-color:${color.series(modelIndex(models, model))}">
                  <header>
                    <span>${model}</span>
                    <span class="reward">
                      ${[
                        ...(finishReason === 'length' ? ['cut at the limit'] : []),
                        ...(typeof earned === 'number' ? [`reward ${formatNumber(earned)}`] : []),
                      ].join(' · ')}
                    </span>
                  </header>
                  <div class="said">${text === '' ? html`<span class="note">(empty)</span>` : text}</div>
                </div>`,
            )}
          </div>
        </article>`,
    )}`;
}
