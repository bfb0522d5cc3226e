import type { EChartsOption } from 'echarts';
import { escapeHtml, type Html, trusted, visible } from './markup.js';

/** Colours that follow the page's light or dark scheme. */
export const color = {
  ink: 'var(--ink)',
  muted: 'var(--muted)',
  grid: 'var(--grid)',
  paper: 'var(--paper)',
  series: (index: number) => `var(--s${(index % 6) + 1})`,
};

/**
 * Draws a chart on the server as one `<svg>` without script, style sheet or reference to anything outside.
 * ECharts is large, so it is loaded with the first chart.
 *
 * @param id unique in the page; prefixes the clip paths, which share the page's name space
 */
export async function renderSvg(
  option: EChartsOption,
  { id, label, width, height }: { id: string; label: string; width: number; height: number },
): Promise<Html> {
  const { init } = await echarts();
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height });
  try {
    chart.setOption({ animation: false, textStyle: { fontFamily: 'inherit' }, ...option });
    const svg = chart
      .renderToSVGString()
      .replace(/<style\s*>[\s\S]*?<\/style>/g, '')
      .replace(/ (class|pointer-events|ecmeta_\w+|xmlns|xmlns:xlink|version|baseProfile)="[^"]*"/g, '')
      // Quotes in text are escaped, so these match attributes only.
      .replace(/(?<= id="|="url\(#)zr\d+-/g, `${id}-`)
      .replace(/\n/g, '')
      .replace(/^<svg width="\d+" height="\d+"/, () => `<svg role="img" aria-label="${escapeHtml(label)}"`);
    return trusted(visible(svg));
  } finally {
    chart.dispose();
  }
}

type Core = typeof import('echarts/core');
let loading: Promise<Core> | undefined;

function echarts(): Promise<Core> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Core> {
  const [core, { LineChart, ScatterChart, BarChart }, { GridComponent }, { SVGRenderer }] = await Promise.all([
    import('echarts/core'),
    import('echarts/charts'),
    import('echarts/components'),
    import('echarts/renderers'),
  ]);
  core.use([LineChart, ScatterChart, BarChart, GridComponent, SVGRenderer]);
  return core;
}
