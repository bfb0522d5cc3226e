import type { DataSummary, FileSummary, LengthStatistics } from '../../data/check.js';

/** What `data check` found, for people. */
export function showSummary(summary: DataSummary): string {
  const parts = summary.files.map(showFile);
  const { positivesSharedWithSft, testRowsSeenInTraining } = summary;
  if (positivesSharedWithSft !== undefined) {
    parts.push(`${positivesSharedWithSft} of the humorous texts are also SFT texts; the one split keeps them apart.`);
  }
  if (testRowsSeenInTraining !== undefined) {
    parts.push(`${testRowsSeenInTraining} test rows share a headline or text with training rows, which are dropped.`);
  }
  return parts.join('\n\n');
}

function showFile(file: FileSummary): string {
  const { duplicates, wordsNotInCompletion: words, labels, split } = file;
  const lines: [string, string][] = [
    ['rows', `${file.rows} (${file.headlines} headlines, ${file.prompts} prompts)`],
    ['length', showLength(file.length)],
  ];
  if (labels !== undefined) {
    lines.push(['labels', `${labels.positive} humorous (${percent(labels.positiveShare)}), ${labels.negative} not`]);
    if (labels.positiveLength !== undefined) lines.push(['  humorous', showLength(labels.positiveLength)]);
    if (labels.negativeLength !== undefined) lines.push(['  not', showLength(labels.negativeLength)]);
    lines.push(['  shared', `${labels.sharedHeadlines} headlines have both labels`]);
  }
  lines.push(['repeated', `${duplicates.completion} texts, ${duplicates.headline} headlines, ${duplicates.both} both`]);
  if (words.rows > 0) lines.push(['words', `${words.rows} rows lack a given word, e.g. ${words.examples.join(', ')}`]);
  if (split !== undefined) {
    const dropped = split.dropped === 0 ? '' : `, ${split.dropped} dropped so that nothing leaks`;
    lines.push(['split', `${split.train} train, ${split.validation} validation${dropped}`]);
  }
  return [file.file, ...lines.map(([name, text]) => `  ${name.padEnd(12)}${text}`)].join('\n');
}

function showLength({ min, median, mean, p95, max }: LengthStatistics): string {
  return `${min} to ${max} characters, median ${median}, mean ${mean.toFixed(1)}, 95 % up to ${p95}`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
