import { formatNumber, formatPercent, formatSeconds, formatSetting, timeForPeople } from './format.js';
import { generatorCells } from './html/reward.js';
import { parseReportInput, type Report, type ReportInput } from './input.js';
import { visible } from './markup.js';
import { addedValueSentences, generatorSentences, lengthSentence, rewardSentence } from './sentences.js';
import { sparkline } from './series.js';

/**
 * The report as Markdown: the HTML report's sentences and tables, with curves as one line of blocks. Text from the
 * input is escaped, so that it reads as written.
 *
 * @throws UserError when the input does not fit `ReportInput`
 */
export function renderMarkdown(input: ReportInput): string {
  const report = parseReportInput(input);
  const blocks = [
    `# ${escapeMarkdown(report.title)}`,
    report.subtitle && escapeMarkdown(report.subtitle),
    report.createdAt && escapeMarkdown(timeForPeople(report.createdAt)),
    report.expectation && escapeMarkdown(report.expectation),
    ...rewardBlocks(report),
    ...generationBlocks(report),
    ...rewardModelBlocks(report),
    ...stageBlocks(report),
    ...appendixBlocks(report),
  ];
  return `${blocks.filter((block) => block !== undefined && block !== '').join('\n\n')}\n`;
}

type Block = string | undefined;

function rewardBlocks(report: Report): Block[] {
  const { reward, generators } = report;
  if (reward === undefined && generators.length === 0) return [];
  const length = reward && lengthSentence(reward);
  const { header, rows } = generatorCells(generators);
  return [
    '## Before and after',
    reward && escapeMarkdown(rewardSentence(reward)),
    length && escapeMarkdown(length),
    escapeMarkdown(generatorSentences(report).join(' ')),
    reward &&
      table(
        ['Model', 'Mean reward', 'Low', 'High'],
        reward.models.map(({ name, mean }) => [name, ...[mean.estimate, mean.low, mean.high].map(formatNumber)]),
      ),
    generators.length > 0 ? table(header, rows) : undefined,
  ];
}

function generationBlocks({ generations }: Report): Block[] {
  if (generations.length === 0) return [];
  return [
    '## Side by side, on unseen prompts',
    ...generations.flatMap(({ prompt, texts }) => [
      quote(prompt.trim()),
      table(
        ['Model', 'Reward', 'Text'],
        texts.map(({ model, reward, text, finishReason }) => [
          model,
          formatNumber(reward),
          finishReason === 'length' ? `${text} (cut at the limit)` : text,
        ]),
      ),
    ]),
  ];
}

function rewardModelBlocks({ rewardModel }: Report): Block[] {
  if (rewardModel === undefined) return [];
  const { metrics, test, baselines, evaluatedOn } = rewardModel;
  const figures = (own: typeof metrics) =>
    [own.accuracy, own.precision, own.recall, own.f1, own.rocAuc, own.logLoss].map(formatNumber);
  const { confusion, reliability } = metrics;
  return [
    '## Reward model',
    ...addedValueSentences(rewardModel).map(escapeMarkdown),
    table(
      [`Scorer, on ${evaluatedOn}`, 'Accuracy', 'Precision', 'Recall', 'F1', 'ROC AUC', 'Log loss'],
      [
        ...baselines.map(({ name, description, metrics: own }) => [`${name}: ${description}`, ...figures(own)]),
        ['reward model', ...figures(metrics)],
        ...(test ? [['reward model, test set', ...figures(test)]] : []),
      ],
    ),
    table(
      ['Truth', 'Predicted not humorous', 'Predicted humorous'],
      ['not humorous', 'humorous'].map((name, truth) => [name, ...confusion[truth]!.map(formatNumber)]),
    ),
    `Calibration: expected calibration error ${formatNumber(metrics.ecePositive)}.`,
    table(
      ['Score', 'Rows', 'Mean score', 'Share humorous'],
      reliability
        .filter(({ count }) => count > 0)
        .map(({ low, high, count, meanScore, fractionPositive }) => [
          `${formatNumber(low)} to ${formatNumber(high)}`,
          formatNumber(count),
          formatNumber(meanScore),
          formatPercent(fractionPositive),
        ]),
    ),
  ];
}

function stageBlocks({ stages }: Report): Block[] {
  if (stages.length === 0) return [];
  return [
    '## Training',
    ...stages.flatMap(({ name, summary, seconds, alarms, charts }) => [
      `### ${escapeMarkdown(name)}`,
      summary && escapeMarkdown(summary),
      seconds === undefined ? undefined : `Took ${formatSeconds(seconds)}.`,
      alarms.length === 0
        ? undefined
        : ['**Alarms**', '', ...alarms.map(({ step, message }) => `- Step ${step}: ${escapeMarkdown(message)}`)].join(
            '\n',
          ),
      charts.length === 0
        ? 'No metrics were recorded.'
        : table(
            ['Curve', 'Steps', 'First', 'Last', 'Lowest', 'Highest', 'Course'],
            charts.flatMap(({ title, series }) =>
              series.map(({ name: curve, points }) => {
                const values = points.map(({ value }) => value);
                return [
                  `${title}: ${curve}`,
                  points.length === 0
                    ? formatNumber(null)
                    : `${formatNumber(points[0]!.step)} to ${formatNumber(points.at(-1)!.step)}`,
                  formatNumber(values[0]),
                  formatNumber(values.at(-1)),
                  formatNumber(values.length === 0 ? null : values.reduce((a, b) => Math.min(a, b))),
                  formatNumber(values.length === 0 ? null : values.reduce((a, b) => Math.max(a, b))),
                  sparkline(points),
                ];
              }),
            ),
          ),
    ]),
  ];
}

function appendixBlocks({ notes, settings, versions, commands }: Report): Block[] {
  const sections = Object.entries(settings);
  const blocks = [
    commands.length > 0 ? codeBlock(commands.join('\n')) : undefined,
    ...notes.map(escapeMarkdown),
    ...(sections.length > 0
      ? [
          '### Settings',
          table(
            ['Setting', 'Value'],
            sections.flatMap(([section, entries]) =>
              Object.entries(entries).map(([key, value]) => [`${section}.${key}`, formatSetting(value)]),
            ),
          ),
        ]
      : []),
    ...(Object.keys(versions).length > 0
      ? ['### Versions', table(['Software', 'Version'], Object.entries(versions))]
      : []),
  ];
  return blocks.some((block) => block !== undefined) ? ['## How to repeat it', ...blocks] : [];
}

/** Text that Markdown and the HTML within it leave as it is, nor turn into links. Line breaks become spaces. */
export function escapeMarkdown(text: string): string {
  return escapeInline(text)
    .replace(/^\s*(?:(?=[#+=-])|\d+(?=[.)]))/gm, '$&\\')
    .replace(/\s*\n\s*/g, ' ');
}

/** The same where no line starts, as in a table's cell. */
function escapeInline(text: string): string {
  return visible(text)
    .replace(/[\\`*_[\]|~<>&$@]/g, String.raw`\$&`)
    .replace(/(?<=\w):(?=\/\/)|(?<=\bwww)\./gi, String.raw`\$&`);
}

/** A table; a column of figures stands to the right. */
function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(' | ')} |`;
  const rule = header.map((_, i) => (rows.every((cells) => FIGURE.test(cells[i] ?? '')) ? '---:' : '---'));
  return [line(header), `| ${rule.join(' | ')} |`, ...rows.map(line)].join('\n');
}

const FIGURE = /^(–|[−+]?[\d.,]+(e−?\d+)?( %)?)$/;

function cell(text: string): string {
  return escapeInline(text.trim()).replace(/\s*\n\s*/g, '<br>');
}

function quote(text: string): string {
  return visible(text)
    .split('\n')
    .map((line) => `> ${escapeMarkdown(line)}`.trimEnd())
    .join('\n');
}

/** A fenced block; the fence is longer than any run of back ticks inside. */
function codeBlock(text: string): string {
  const runs = text.match(/`+/g) ?? [];
  const fence = '`'.repeat(Math.max(3, ...runs.map((run) => run.length + 1)));
  return `${fence}sh\n${visible(text)}\n${fence}`;
}
