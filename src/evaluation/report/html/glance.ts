import { formatNumber, formatPercent, formatRange, formatSigned } from '../format.js';
import type { Report } from '../input.js';
import { html, type Html } from '../markup.js';

interface Card {
  what: string;
  figure: string;
  detail: string;
}

/** The figures that decide whether the run worked, before anything else. */
export function glanceSection(report: Report): Html | undefined {
  const cards = [
    rewardCard(report),
    lengthCard(report),
    modelCard(report),
    addedCard(report),
    ...textCards(report),
  ].filter((card) => card !== undefined);
  if (cards.length === 0) return undefined;
  return html`<section class="cards">
    ${cards.map(
      ({ what, figure, detail }) =>
        html`<div class="card"><b>${figure}</b><span class="what">${what}</span><span>${detail}</span></div>`,
    )}
  </section>`;
}

function rewardCard({ reward }: Report): Card | undefined {
  if (reward === undefined) return undefined;
  const { difference, before, after } = reward;
  return {
    what: 'Reward gained',
    figure: formatSigned(difference.estimate),
    detail: `${before} → ${after}, ${formatNumber(100 * difference.level)} % interval ${formatRange(difference)}`,
  };
}

function lengthCard({ reward }: Report): Card | undefined {
  if (!reward?.length) return undefined;
  const { share, meanLengthBefore, meanLengthAfter } = reward.length;
  return {
    what: 'Gain explained by length',
    figure: formatPercent(share),
    detail: `mean length ${formatNumber(meanLengthBefore)} → ${formatNumber(meanLengthAfter)}`,
  };
}

function modelCard({ rewardModel }: Report): Card | undefined {
  if (rewardModel === undefined) return undefined;
  const aucs = rewardModel.baselines.flatMap(({ metrics: { rocAuc } }) => (rocAuc === null ? [] : [rocAuc]));
  return {
    what: 'Reward model ROC AUC',
    figure: formatNumber(rewardModel.metrics.rocAuc),
    detail: aucs.length === 0 ? `on ${rewardModel.evaluatedOn}` : `best baseline ${formatNumber(Math.max(...aucs))}`,
  };
}

function addedCard({ rewardModel }: Report): Card | undefined {
  if (!rewardModel?.added) return undefined;
  const { difference } = rewardModel.added;
  return {
    what: 'AUC added by the model',
    figure: formatSigned(difference.estimate),
    detail: `given prompt and length, ${formatRange(difference)}`,
  };
}

function textCards({ generators }: Report): Card[] {
  const last = generators.at(-1);
  const previous = generators.at(-2);
  const cards: Card[] = [];
  if (typeof last?.eosShare === 'number') {
    cards.push({ what: 'Ended by EOS', figure: formatPercent(last.eosShare), detail: `of ${last.name}'s texts` });
  }
  if (typeof last?.distinct2 === 'number') {
    const before =
      typeof previous?.distinct2 === 'number' ? `, ${previous.name} ${formatNumber(previous.distinct2)}` : '';
    cards.push({ what: 'Distinct-2', figure: formatNumber(last.distinct2), detail: `${last.name}${before}` });
  }
  return cards;
}
