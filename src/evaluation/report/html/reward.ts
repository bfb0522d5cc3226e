import { modelIndex, rewardByLengthOption, rewardIntervalsOption } from '../charts.js';
import { formatNumber, formatPercent } from '../format.js';
import type { Report, ReportGenerator } from '../input.js';
import { html, type Html } from '../markup.js';
import { generatorSentences, lengthSentence, rewardSentence } from '../sentences.js';
import { color } from '../svg.js';
import type { FigureRenderer } from './figures.js';

/** Reward before and after on unseen prompts, and what else changed in the texts. */
export async function rewardSection(report: Report, figures: FigureRenderer): Promise<Html | undefined> {
  const { reward, generators } = report;
  if (reward === undefined && generators.length === 0) return undefined;
  const drawn: Html[] = [];
  if (reward !== undefined) {
    drawn.push(
      await figures.render({
        title: 'Mean reward on unseen prompts',
        note: `Bars: ${formatNumber(100 * reward.models[0]!.mean.level)} % bootstrap intervals of the means. The paired difference above is sharper than their overlap.`,
        option: rewardIntervalsOption(reward),
        height: 70 + 55 * reward.models.length,
      }),
    );
    if (reward.samples.some(({ points }) => points.length > 0)) {
      drawn.push(
        await figures.render({
          title: 'Reward against length',
          note: `One dot a text. Dashed: what length predicted at ${reward.before}.`,
          legend: reward.samples.map(({ model }) => ({
            name: model,
            color: color.series(modelIndex(reward.models, model)),
          })),
          option: rewardByLengthOption(reward),
          height: 270,
        }),
      );
    }
  }
  const length = reward === undefined ? undefined : lengthSentence(reward);
  return html`<h2 id="reward">Before and after</h2>
    ${reward !== undefined && html`<p>${rewardSentence(reward)}</p>`} ${length !== undefined && html`<p>${length}</p>`}
    ${generators.length > 0 && html`<p>${generatorSentences(report).join(' ')}</p>`}
    ${drawn.length > 0 && html`<div class="charts">${drawn}</div>`}
    ${generators.length > 0 && generatorTable(generators)}`;
}

const columns: readonly {
  title: string;
  value: (generator: ReportGenerator) => number | null | undefined;
  share: boolean;
}[] = [
  { title: 'Texts', value: ({ texts }) => texts, share: false },
  { title: 'Ended by EOS', value: ({ eosShare }) => eosShare, share: true },
  { title: 'Mean length', value: ({ meanLength }) => meanLength, share: false },
  { title: 'Distinct-1', value: ({ distinct1 }) => distinct1, share: false },
  { title: 'Distinct-2', value: ({ distinct2 }) => distinct2, share: false },
  { title: 'Self-similarity', value: ({ selfSimilarity }) => selfSimilarity, share: false },
  { title: 'Both words used', value: ({ bothWordsShare }) => bothWordsShare, share: true },
  { title: 'Copied from training', value: ({ copiedShare }) => copiedShare, share: true },
  { title: 'Garbage', value: ({ garbageShare }) => garbageShare, share: true },
];

/** The table's measured columns, as text: header first. */
export function generatorCells(generators: readonly ReportGenerator[]): { header: string[]; rows: string[][] } {
  const measured = columns.filter(({ value }) => generators.some((generator) => typeof value(generator) === 'number'));
  return {
    header: ['Model', ...measured.map(({ title }) => title)],
    rows: generators.map((generator) => [
      generator.name,
      ...measured.map(({ value, share }) => (share ? formatPercent : formatNumber)(value(generator))),
    ]),
  };
}

function generatorTable(generators: readonly ReportGenerator[]): Html {
  const { header, rows } = generatorCells(generators);
  return html`<h3>The texts in figures</h3>
    <div class="scroll">
      <table class="wide">
        <thead>
          <tr>
            ${header.map((title) => html`<th>${title.replace('-', '\u2011')}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            (cells) =>
              html`<tr>
                ${cells.map((cell) => html`<td>${cell}</td>`)}
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p class="note">
      Lengths in characters. Distinct-n: different character n-grams among all. Self-similarity: mean overlap of two
      texts' 3-grams. Copied: share of characters in a stretch of 8 that occurs in the training texts. Garbage: empty,
      broken characters, hardly Chinese, or stuck in a repetition.
    </p>`;
}
