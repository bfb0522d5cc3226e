import type { EChartsOption, LineSeriesOption, ScatterSeriesOption } from 'echarts';
import { formatNumber } from './format.js';
import type { ReportChart, ReportInterval, ReportPoint, ReportReward, ReportRewardModel } from './input.js';
import { distinguishable, smooth, thin } from './series.js';
import { color } from './svg.js';

/** More points than this are averaged: a page is not wider. */
const MAX_POINTS = 400;
/** From here on a curve is drawn thin, with its moving average on top. */
const SMOOTH_FROM = 40;

/** Curves over steps; a long curve also gets its moving average, a single point a dot. */
export function curvesOption({ series }: ReportChart): EChartsOption {
  return {
    grid: { left: 8, right: 18, top: 14, bottom: 4, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    xAxis: axis(stepRange(series.flatMap(({ points }) => points))),
    yAxis: axis({ scale: true, splitNumber: 4 }),
    series: distinguishable(series.map(({ points }) => thin(points, MAX_POINTS))).flatMap((points, index) =>
      curve(points, color.series(index)),
    ),
  };
}

/** The steps that occur, with a step of air around a single one. */
function stepRange(points: readonly ReportPoint[]): { min: number; max: number; minInterval: number } {
  const min = points.reduce((least, { step }) => Math.min(least, step), Infinity);
  const max = points.reduce((most, { step }) => Math.max(most, step), -Infinity);
  const air = min === max ? 1 : 0;
  return { min: min - air, max: max + air, minInterval: 1 };
}

function curve(points: readonly ReportPoint[], stroke: string): LineSeriesOption[] {
  const line = (data: readonly ReportPoint[], width: number, opacity: number): LineSeriesOption => ({
    type: 'line',
    data: data.map(({ step, value }) => [step, value]),
    showSymbol: points.length <= 12,
    symbol: 'circle',
    symbolSize: points.length === 1 ? 9 : 6,
    lineStyle: { color: stroke, width, opacity },
    itemStyle: { color: stroke },
    silent: true,
  });
  if (points.length < SMOOTH_FROM) return [line(points, 2, 1)];
  return [line(points, 1, 0.35), line(smooth(points, smoothingWindow(points.length)), 2.2, 1)];
}

/** Points that the bold line averages; odd. */
export function smoothingWindow(points: number): number {
  return points < SMOOTH_FROM ? 1 : 2 * Math.max(2, Math.round(Math.min(points, MAX_POINTS) / 30)) + 1;
}

/** Observed share of label 1 against the mean score, with the rows in each bin as bars and the diagonal of perfection. */
export function reliabilityOption({ metrics: { reliability } }: ReportRewardModel): EChartsOption {
  const most = Math.max(1, ...reliability.map(({ count }) => count));
  const diagonal: LineSeriesOption = {
    type: 'line',
    data: [
      [0, 0],
      [1, 1],
    ],
    showSymbol: false,
    lineStyle: { color: color.muted, width: 1, type: 'dashed' },
    silent: true,
  };
  return {
    grid: { left: 8, right: 18, top: 14, bottom: 22, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    xAxis: {
      ...axis({ min: 0, max: 1, interval: 0.2 }),
      name: 'score',
      nameLocation: 'middle',
      nameGap: 26,
      nameTextStyle: text,
    },
    yAxis: axis({ min: 0, max: 1, interval: 0.2 }),
    series: [
      {
        type: 'bar',
        data: reliability.map(({ low, high, count }) => [(low + high) / 2, (0.25 * count) / most]),
        barWidth: 34,
        itemStyle: { color: color.muted, opacity: 0.2 },
        silent: true,
      },
      diagonal,
      {
        type: 'line',
        data: reliability.flatMap(({ meanScore, fractionPositive }) =>
          meanScore === null || fractionPositive === null ? [] : [[meanScore, fractionPositive]],
        ),
        symbol: 'circle',
        symbolSize: 7,
        lineStyle: { color: color.series(0), width: 2 },
        itemStyle: { color: color.series(0) },
        silent: true,
      },
    ],
  };
}

/** Mean rewards with their intervals, one row a model, the first on top. */
export function rewardIntervalsOption({ models }: ReportReward): EChartsOption {
  const rows = [...models].reverse();
  return {
    grid: { left: 8, right: 24, top: 8, bottom: 4, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    xAxis: axis({ scale: true, splitNumber: 4 }),
    yAxis: {
      type: 'category',
      data: rows.map(({ name }) => name),
      axisLabel: { ...text, fontSize: 13, color: color.ink },
      axisLine: { show: false },
      axisTick: { show: false },
    },
    series: rows.flatMap(({ mean }, row) => interval(mean, row, color.series(models.length - 1 - row))),
  };
}

function interval({ low, high, estimate }: ReportInterval, row: number, stroke: string) {
  const bar: LineSeriesOption = {
    type: 'line',
    data: [
      [low, row],
      [high, row],
    ],
    showSymbol: false,
    lineStyle: { color: stroke, width: 4, opacity: 0.45, cap: 'round' },
    silent: true,
  };
  const dot: ScatterSeriesOption = {
    type: 'scatter',
    data: [[estimate, row]],
    symbolSize: 11,
    itemStyle: { color: stroke },
    label: { show: true, position: 'top', formatter: formatNumber(estimate), ...text, color: color.ink },
    silent: true,
  };
  return [bar, dot];
}

/** Reward against length, one dot a text; the line is the fit on the texts before. */
export function rewardByLengthOption({ models, samples, length, before }: ReportReward): EChartsOption {
  const dots: ScatterSeriesOption[] = samples.map(({ model, points }) => ({
    type: 'scatter',
    data: points.map((point) => [point.length, point.reward]),
    symbolSize: 5,
    itemStyle: { color: color.series(modelIndex(models, model)), opacity: 0.45 },
    silent: true,
  }));
  const fitted = models.find(({ name }) => name === before)?.mean.estimate;
  const lengths = samples.flatMap(({ points }) => points.map((point) => point.length));
  const line: LineSeriesOption[] =
    !length || fitted === undefined || lengths.length === 0
      ? []
      : [
          {
            type: 'line',
            data: [Math.min(...lengths), Math.max(...lengths)].map((x) => [
              x,
              fitted + length.slope * (x - length.meanLengthBefore),
            ]),
            showSymbol: false,
            lineStyle: { color: color.muted, width: 1.5, type: 'dashed' },
            silent: true,
          },
        ];
  return {
    grid: { left: 8, right: 18, top: 14, bottom: 22, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    xAxis: { ...axis({ scale: true }), name: 'length', nameLocation: 'middle', nameGap: 26, nameTextStyle: text },
    yAxis: axis({ scale: true, splitNumber: 4 }),
    series: [...dots, ...line],
  };
}

/** A model keeps its colour through the whole report. */
export function modelIndex(models: readonly { name: string }[], name: string): number {
  const index = models.findIndex((model) => model.name === name);
  return index < 0 ? models.length : index;
}

const text = { fontSize: 12, color: color.muted };

function axis(extra: {
  min?: number;
  max?: number;
  minInterval?: number;
  scale?: boolean;
  splitNumber?: number;
  interval?: number;
}) {
  return {
    type: 'value' as const,
    axisLabel: { ...text, formatter: tick, hideOverlap: true },
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: color.grid } },
    ...extra,
  };
}

/** Tick labels: steps as 1.5k, everything else as short as its digits allow. */
function tick(value: number): string {
  if (Math.abs(value) >= 10_000) return `${String(Number((value / 1000).toFixed(1)))}k`;
  if (value !== 0 && Math.abs(value) < 1e-3) return formatNumber(value);
  return String(Number(value.toPrecision(6))).replace('-', '−');
}
