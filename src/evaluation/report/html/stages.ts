import { curvesOption, smoothingWindow } from '../charts.js';
import { formatSeconds } from '../format.js';
import type { Report, ReportChart } from '../input.js';
import { html, type Html } from '../markup.js';
import { color } from '../svg.js';
import type { FigureRenderer } from './figures.js';

/** The curves of each stage. */
export async function stagesSection({ stages }: Report, figures: FigureRenderer): Promise<Html | undefined> {
  if (stages.length === 0) return undefined;
  const parts: Html[] = [];
  for (const { name, summary, seconds, alarms, charts } of stages) {
    const drawn: Html[] = [];
    for (const chart of charts) drawn.push(await curveFigure(chart, figures));
    parts.push(
      html`<h3>${name}</h3>
        ${
          (summary ?? seconds) !== undefined &&
          html`<p class="note">${summary} ${seconds !== undefined && html`Took ${formatSeconds(seconds)}.`}</p>`
        }
        ${
          alarms.length > 0 &&
          html`<div class="alarms">
            <b>Alarms</b>
            <ul>
              ${alarms.map(({ step, message }) => html`<li>Step ${step}: ${message}</li>`)}
            </ul>
          </div>`
        }
        ${
          drawn.length === 0
            ? html`<div class="empty">No metrics were recorded.</div>`
            : html`<div class="charts">${drawn}</div>`
        }`,
    );
  }
  return html`<h2 id="training">Training</h2>
    ${
      stages.some(({ charts }) => charts.some(isSmoothed)) &&
      html`<p class="note">
        Steps run to the right. Where a curve is drawn twice, the thin line is what was logged and the bold one its
        moving average.
      </p>`
    }
    ${parts}`;
}

function curveFigure(chart: ReportChart, figures: FigureRenderer): Promise<Html> {
  const filled = chart.series.filter(({ points }) => points.length > 0);
  return figures.render({
    title: chart.title,
    note: chart.note,
    legend: filled.map(({ name }, index) => ({ name, color: color.series(index) })),
    option: filled.length === 0 ? undefined : curvesOption({ ...chart, series: filled }),
  });
}

function isSmoothed({ series }: ReportChart): boolean {
  return series.some(({ points }) => smoothingWindow(points.length) > 1);
}
