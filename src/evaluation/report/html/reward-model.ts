import { reliabilityOption } from '../charts.js';
import { formatNumber, formatPercent } from '../format.js';
import type { Report, ReportRewardModel } from '../input.js';
import { html, type Html } from '../markup.js';
import { addedValueSentences } from '../sentences.js';
import type { FigureRenderer } from './figures.js';

/** The reward model beside its baselines, its errors, and whether its probabilities can be believed. */
export async function rewardModelSection({ rewardModel }: Report, figures: FigureRenderer): Promise<Html | undefined> {
  if (rewardModel === undefined) return undefined;
  const { metrics, test, baselines, evaluatedOn } = rewardModel;
  const calibration = await figures.render({
    title: 'Calibration',
    note: `Share of humorous texts against the score; on the dashed line scores can be read as probabilities. Bars: rows in each bin. Expected calibration error ${formatNumber(metrics.ecePositive)}.`,
    option: metrics.rows === 0 ? undefined : reliabilityOption(rewardModel),
    height: 300,
  });
  return html`<h2 id="reward-model">Reward model</h2>
    ${addedValueSentences(rewardModel).map((sentence) => html`<p>${sentence}</p>`)}
    <div class="scroll">
      <table class="wide">
        <thead>
          <tr>
            <th>Scorer, on ${evaluatedOn}</th>
            <th>Accuracy</th>
            <th>Precision</th>
            <th>Recall</th>
            <th>F1</th>
            <th>ROC AUC</th>
            <th>Avg. precision</th>
            <th>Log loss</th>
            <th>Brier</th>
          </tr>
        </thead>
        <tbody>
          ${baselines.map(({ name, description, metrics: own }) => row(name, description, own, false))}
          ${row('reward model', undefined, metrics, true)}
          ${test && row('reward model, test set', 'looked at once, after training', test, true)}
        </tbody>
      </table>
    </div>
    <div class="charts">
      <figure>
        <div class="charttitle">Confusion matrix</div>
        ${confusionTable(metrics.confusion)}
        <figcaption>Threshold 0.5; percentages are of the true label.</figcaption>
      </figure>
      ${calibration}
    </div>`;
}

function row(name: string, description: string | undefined, own: ReportRewardModel['metrics'], isOwn: boolean): Html {
  const figures = [
    own.accuracy,
    own.precision,
    own.recall,
    own.f1,
    own.rocAuc,
    own.averagePrecision,
    own.logLoss,
    own.brier,
  ];
  return html`<tr class="${isOwn ? 'own' : 'baseline'}">
    <td>${name}${description !== undefined && html`<small>${description}</small>`}</td>
    ${figures.map((figure) => html`<td>${formatNumber(figure)}</td>`)}
  </tr>`;
}

function confusionTable(confusion: ReportRewardModel['metrics']['confusion']): Html {
  const names = ['not humorous', 'humorous'];
  return html`<table class="confusion">
    <thead>
      <tr>
        <th></th>
        ${names.map((name) => html`<th scope="col">predicted<br />${name}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${confusion.map((counts, truth) => {
        const support = counts[0] + counts[1];
        return html`<tr>
          <th scope="row">truly<br />${names[truth]}</th>
          ${counts.map((count) => {
            const part = support === 0 ? 0 : count / support;
            return html`<td style="background:rgba(var(--heat),${(0.06 + 0.5 * part).toFixed(2)})">
              <b>${formatNumber(count)}</b><small>${formatPercent(part)}</small>
            </td>`;
          })}
        </tr>`;
      })}
    </tbody>
  </table>`;
}
