import { timeForPeople } from '../format.js';
import { parseReportInput, type ReportInput } from '../input.js';
import { html, trusted, type Html } from '../markup.js';
import { style } from '../style.js';
import { appendixSections } from './appendix.js';
import { FigureRenderer } from './figures.js';
import { generationsSection } from './generations.js';
import { glanceSection } from './glance.js';
import { rewardModelSection } from './reward-model.js';
import { rewardSection } from './reward.js';
import { stagesSection } from './stages.js';

/**
 * The report as one HTML document: style and pictures inside, no script, and a policy that forbids loading anything.
 * All text from the input is escaped. The same input gives the same string.
 *
 * @throws UserError when the input does not fit `ReportInput`
 */
export async function renderHtml(input: ReportInput): Promise<string> {
  const report = parseReportInput(input);
  const figures = new FigureRenderer();
  const sections: [id: string, name: string, body: Html | undefined][] = [
    ['reward', 'Before and after', await rewardSection(report, figures)],
    ['generations', 'Side by side', generationsSection(report)],
    ['reward-model', 'Reward model', await rewardModelSection(report, figures)],
    ['training', 'Training', await stagesSection(report, figures)],
    ['repeat', 'How to repeat it', appendixSections(report)],
  ];
  const shown = sections.filter(([, , body]) => body !== undefined);
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${report.title}</title>
        <style>
          ${trusted(style)}
        </style>
      </head>
      <body>
        <header>
          <h1>${report.title}</h1>
          ${report.subtitle !== undefined && html`<div>${report.subtitle}</div>`}
          ${report.createdAt !== undefined && html`<div class="meta">${timeForPeople(report.createdAt)}</div>`}
          ${shown.length > 1 && html`<nav>${shown.map(([id, name]) => html`<a href="#${id}">${name}</a>`)}</nav>`}
        </header>
        <main>
          ${glanceSection(report)}
          ${report.expectation !== undefined && html`<p class="expectation">${report.expectation}</p>`}
          ${shown.map(([, , body]) => body)}
        </main>
      </body>
    </html>`.text;
}
