import type { EChartsOption } from 'echarts';
import { color, renderSvg } from '../../src/evaluation/report/svg.js';
import type { GrowthPoint } from './growth.js';
import { AXES, type Axis } from './plan.js';

const TITLES: Readonly<Record<Axis, string>> = {
  length: 'sequence length in tokens',
  group: 'completions of a group',
  layers: 'layers',
  steps: 'steps taken',
};
const PANEL = { width: 420, height: 190, top: 34 };
const STYLE =
  ':root{--ink:#222;--muted:#666;--grid:#ddd;--paper:#fff;--s1:#2563a8;--s2:#b4512d}' +
  '@media(prefers-color-scheme:dark){:root{--ink:#eee;--muted:#aaa;--grid:#444;--paper:#161616;--s1:#6aa9f0;--s2:#f09a70}}' +
  'text{font-family:sans-serif}';

/** Time and memory beside each other, a row for each thing that grows: one SVG. */
export async function drawGrowth(points: readonly GrowthPoint[]): Promise<string> {
  const panels: string[] = [];
  for (const [row, axis] of AXES.entries()) {
    const own = points.filter((point) => point.axis === axis);
    const curves = [
      { title: `seconds a step, over ${TITLES[axis]}`, of: ({ seconds }: GrowthPoint) => seconds },
      { title: `memory in MiB, over ${TITLES[axis]}`, of: ({ bytes }: GrowthPoint) => bytes / 2 ** 20 },
    ];
    for (const [column, { title, of }] of curves.entries()) {
      const [x, y] = [column * PANEL.width, row * (PANEL.height + PANEL.top)];
      const data = own.map((point) => [point.value, Number(of(point).toPrecision(4))]);
      const chart = await renderSvg(option(data, column), { id: `${axis}${column}`, label: title, ...PANEL });
      panels.push(
        `<text x="${x + 12}" y="${y + 24}" font-size="13" fill="var(--ink)">${title}</text>`,
        chart.text.replace(
          '<svg ',
          `<svg x="${x}" y="${y + PANEL.top}" width="${PANEL.width}" height="${PANEL.height}" `,
        ),
      );
    }
  }
  const [width, height] = [2 * PANEL.width, AXES.length * (PANEL.height + PANEL.top)];
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`;
  const paper = `<rect width="${width}" height="${height}" fill="var(--paper)"/>`;
  return `${head}<style>${STYLE}</style>${paper}${panels.join('')}</svg>\n`;
}

function option(data: readonly number[][], index: number): EChartsOption {
  const labels = { axisLabel: { color: color.muted }, splitLine: { lineStyle: { color: color.grid } } };
  return {
    grid: { left: 8, right: 18, top: 10, bottom: 4, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    xAxis: { type: 'value', min: 0, axisLine: { lineStyle: { color: color.muted } }, ...labels },
    yAxis: { type: 'value', min: 0, splitNumber: 4, ...labels },
    series: [
      {
        type: 'line',
        data: data.map((pair) => [...pair]),
        symbol: 'circle',
        symbolSize: 5,
        lineStyle: { color: color.series(index), width: 2 },
        itemStyle: { color: color.series(index) },
        silent: true,
      },
    ],
  };
}
