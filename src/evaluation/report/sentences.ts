import { formatNumber, formatPercent, formatRange, formatSigned } from './format.js';
import type { Report, ReportInterval, ReportReward, ReportRewardModel } from './input.js';

/** What the reward model adds given the prompt and the length, in words. */
export function addedValueSentences({ metrics, baselines, added, evaluatedOn }: ReportRewardModel): string[] {
  const sentences: string[] = [];
  const rivals = baselines.flatMap(({ name, metrics: { rocAuc } }) => (rocAuc === null ? [] : [{ name, rocAuc }]));
  const best = rivals.reduce<(typeof rivals)[number] | undefined>(
    (champion, rival) => (champion === undefined || rival.rocAuc > champion.rocAuc ? rival : champion),
    undefined,
  );
  if (best !== undefined && metrics.rocAuc !== null) {
    const ahead = metrics.rocAuc - best.rocAuc;
    sentences.push(
      `On ${formatNumber(metrics.rows)} ${evaluatedOn} texts the reward model reaches a ROC AUC of ` +
        `${formatNumber(metrics.rocAuc)}, ${formatNumber(Math.abs(ahead))} ${ahead < 0 ? 'below' : 'above'} the best ` +
        `baseline (${best.name}, ${formatNumber(best.rocAuc)}).`,
    );
  }
  if (added) {
    const verdict = excludesZero(added.difference)
      ? added.difference.estimate > 0
        ? 'it sees something in the text itself'
        : 'it only adds noise'
      : 'the interval holds 0, so no added knowledge of the text is shown';
    sentences.push(
      `Much of the label can be read off the prompt and the length, which a policy cannot honestly improve. Given both ` +
        `(ROC AUC ${formatNumber(added.aucWithout)} together), the model lifts it to ${formatNumber(added.aucWith)}: ` +
        `${intervalText(added.difference)}; ${verdict}.`,
    );
  } else {
    sentences.push(
      'Much of the label can be read off the prompt and the length; what the model adds given both was not measured.',
    );
  }
  return sentences;
}

/** Whether the reward rose, in words. */
export function rewardSentence({ models, before, after, difference }: ReportReward): string {
  const mean = (name: string) => models.find((model) => model.name === name)?.mean.estimate;
  const [from, to] = [mean(before), mean(after)];
  const verdict = excludesZero(difference)
    ? `the interval lies ${difference.estimate > 0 ? 'above' : 'below'} zero`
    : 'the interval holds zero, so neither a gain nor a loss is shown';
  const path = from === undefined || to === undefined ? '' : ` from ${formatNumber(from)} to ${formatNumber(to)}`;
  return (
    `From ${before} to ${after} the mean reward on ${formatNumber(difference.rows)} unseen prompts went${path}: ` +
    `${intervalText(difference)}; ${verdict}.`
  );
}

/** How much of the gain length explains, in words; undefined where it was not measured. */
export function lengthSentence({ length }: ReportReward): string | undefined {
  if (!length) return undefined;
  const share =
    length.share === null
      ? 'As the gain is not distinguishable from zero, no share is stated'
      : `That is ${formatPercent(length.share)} of the gain`;
  return (
    `Mean length went from ${formatNumber(length.meanLengthBefore)} to ${formatNumber(length.meanLengthAfter)}. ` +
    `Before, a unit of length was worth ${formatSigned(length.slope)} reward (least squares, R² ` +
    `${formatNumber(length.r2)}), so length explains ${formatSigned(length.explainedByLength)}. ${share}; ` +
    `the rest is ${intervalText(length.rest)}.`
  );
}

/** Whether the last model still ends its texts and varies them, against the one before it. */
export function generatorSentences({ generators }: Report): string[] {
  const last = generators.at(-1);
  const previous = generators.at(-2);
  if (last === undefined) return [];
  const sentences: string[] = [];
  if (last.eosShare !== null && last.eosShare !== undefined) {
    sentences.push(`${last.name} ends ${formatPercent(last.eosShare)} of its texts by itself, with EOS.`);
  }
  if (previous?.distinct2 && last.distinct2 !== null && last.distinct2 !== undefined) {
    sentences.push(
      `Its distinct-2 is ${formatPercent(last.distinct2 / previous.distinct2)} of ${previous.name}'s` +
        `${last.distinct2 < 0.9 * previous.distinct2 ? ': variety has been lost' : ''}.`,
    );
  }
  return sentences;
}

/** `+0.12, 95 % bootstrap interval [0.08, 0.16]` */
export function intervalText(interval: ReportInterval): string {
  return `${formatSigned(interval.estimate)}, ${formatNumber(100 * interval.level)} % bootstrap interval ${formatRange(interval)}`;
}

function excludesZero({ low, high }: ReportInterval): boolean {
  return low > 0 || high < 0;
}
