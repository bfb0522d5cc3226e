import type { EChartsOption } from 'echarts';
import { html, type Html } from '../markup.js';
import { renderSvg } from '../svg.js';

export interface Figure {
  title: string;
  note?: string | undefined;
  /** Colour → name; shown for two names or more. */
  legend?: readonly { name: string; color: string }[];
  /** Undefined: there is nothing to draw, and the figure says so. */
  option: EChartsOption | undefined;
  height?: number;
}

/** Draws figures with ids that are unique within one page. */
export class FigureRenderer {
  private drawn = 0;

  async render({ title, note, legend = [], option, height = 230 }: Figure): Promise<Html> {
    const id = `chart${(this.drawn += 1)}`;
    const picture =
      option === undefined
        ? html`<div class="empty">No values were recorded.</div>`
        : await renderSvg(option, { id, label: title, width: 480, height });
    return html`<figure>
      <div class="charttitle">
        <span>${title}</span>
        ${legend.length > 1 && legend.map(({ name, color }) => html`<span class="legend">${swatch(color)}${name}</span>`)}
      </div>
      ${picture} ${note !== undefined && html`<figcaption>${note}</figcaption>`}
    </figure>`;
  }
}

/** @param color one of `color.series`, never text from outside */
export function swatch(color: string): Html {
  return html`<span class="swatch" style="background:${color}"></span>`;
}
