import { z } from 'zod';
import { selfSimilarity } from '../../../evaluation/text-metrics.js';
import { characters } from '../../../text/characters.js';
import type { CopyIndex } from '../../../text/copy-index.js';

/** A completion and what it earned; null where no reward applied. */
export interface Rewarded {
  readonly completion: string;
  readonly reward: number | null;
}

/** Bigrams that distinct-2 is told for, where a rollout has as many: a figure that longer texts do not lower. */
const BIGRAMS = 500;

/** What is kept of a rollout to judge it later together with others. Lengths are in characters. */
export const figuresSchema = z.strictObject({
  /** Completions with a reward, their groups, and sums of squares about the groups' means: x length, y reward. */
  scored: z.int(),
  groups: z.int(),
  xx: z.number(),
  xy: z.number(),
  yy: z.number(),
  /** Sum of squares of the groups' mean rewards about the mean of all. */
  between: z.number(),
  length: z.number(),
  /** Counts of the bigrams: how many occur once, twice, … */
  bigrams: z.array(z.int()),
  selfSimilarity: z.number().nullable(),
  copied: z.number(),
  /** Share of completions rated above the range of human texts; null where it is not known. */
  beyondHuman: z.number().nullable(),
  zeroVariance: z.number().nullable(),
});
export type Figures = z.infer<typeof figuresSchema>;

export interface Measuring {
  /** Completions of a prompt, next to each other. */
  readonly groupSize: number;
  readonly training: CopyIndex;
  readonly beyondHuman: number | null;
  readonly zeroVariance: number | null;
}

/** Measures the completions of one rollout. */
export function measure(
  texts: readonly Rewarded[],
  { groupSize, training, beyondHuman, zeroVariance }: Measuring,
): Figures {
  const completions = texts.map(({ completion }) => completion);
  const lengths = completions.map((text) => characters(text).length);
  const similarity = selfSimilarity(completions, { sampleSize: 100 });
  return {
    ...momentsOf(texts, lengths, groupSize),
    length: meanOf(lengths),
    bigrams: bigramSpectrum(completions),
    selfSimilarity: similarity,
    copied: meanOf(completions.map((text) => training.copiedShare(text))),
    beyondHuman,
    zeroVariance,
  };
}

type Moments = Pick<Figures, 'scored' | 'groups' | 'xx' | 'xy' | 'yy' | 'between'>;

function momentsOf(texts: readonly Rewarded[], lengths: readonly number[], groupSize: number): Moments {
  const moments = { scored: 0, groups: 0, xx: 0, xy: 0, yy: 0, between: 0 };
  const means: { size: number; mean: number }[] = [];
  for (let start = 0; start < texts.length; start += groupSize) {
    const members = Array.from({ length: groupSize }, (_, i) => start + i).flatMap((i) => {
      const reward = texts[i]?.reward;
      return reward === null || reward === undefined ? [] : [{ x: lengths[i]!, y: reward }];
    });
    if (members.length < 2) continue;
    const [meanX, meanY] = [meanOf(members.map(({ x }) => x)), meanOf(members.map(({ y }) => y))];
    for (const { x, y } of members) {
      moments.xx += (x - meanX) ** 2;
      moments.xy += (x - meanX) * (y - meanY);
      moments.yy += (y - meanY) ** 2;
    }
    moments.scored += members.length;
    moments.groups += 1;
    means.push({ size: members.length, mean: meanY });
  }
  const all = means.reduce((sum, { size, mean }) => sum + size * mean, 0) / Math.max(1, moments.scored);
  moments.between = means.reduce((sum, { size, mean }) => sum + size * (mean - all) ** 2, 0);
  return moments;
}

/** How many different bigrams of characters occur c times, at place c − 1. */
function bigramSpectrum(texts: readonly string[]): number[] {
  const counts = new Map<string, number>();
  for (const text of texts) {
    const points = characters(text);
    for (let i = 0; i + 1 < points.length; i += 1) {
      const bigram = points[i]! + points[i + 1]!;
      counts.set(bigram, (counts.get(bigram) ?? 0) + 1);
    }
  }
  const spectrum: number[] = [];
  for (const times of counts.values()) {
    while (spectrum.length < times) spectrum.push(0);
    spectrum[times - 1]! += 1;
  }
  return spectrum;
}

/** Bigrams of a rollout, repetitions counted. */
const bigramsOf = ({ bigrams }: Figures): number => bigrams.reduce((sum, n, i) => sum + n * (i + 1), 0);

/** The number of bigrams that distinct-2 is told for in a run which begins with `first`. */
export const bigramBudget = (first: Figures): number => Math.min(BIGRAMS, Math.floor(bigramsOf(first) / 2));

/**
 * Distinct-2 (Li et al. 2016) of `budget` bigrams drawn at random from the rollout: Hurlbert's (1971) rarefaction,
 * Σ over bigrams of 1 − C(N − c, m) / C(N, m), divided by m. Plain distinct-2 falls with the amount of text; this does
 * not. Undefined where the rollout has fewer bigrams.
 */
export function rarefiedDistinct(figures: Figures, budget: number): number | undefined {
  const total = bigramsOf(figures);
  if (budget < 1 || total < budget) return undefined;
  let expected = 0;
  /** C(N − c, m) / C(N, m): the probability that a bigram which occurs c times is not drawn. */
  let missed = 1;
  figures.bigrams.forEach((different, i) => {
    missed *= Math.max(0, total - budget - i) / (total - i);
    expected += different * (1 - missed);
  });
  return expected / budget;
}

/** Pearson correlation of reward and length within groups; undefined where either does not vary. */
export function lengthCorrelation(window: readonly Figures[]): number | undefined {
  const [xx, xy, yy] = [sumOf(window, 'xx'), sumOf(window, 'xy'), sumOf(window, 'yy')];
  // What is left of a reward that rounding alone makes vary is no variance.
  return xx < 1e-9 || yy < 1e-12 ? undefined : xy / Math.sqrt(xx * yy);
}

/**
 * The correlation that is there with 95 % confidence: Fisher's z, one-sided, in absolute value. Few completions prove
 * little.
 */
export function provenCorrelation(window: readonly Figures[]): number | undefined {
  const correlation = lengthCorrelation(window);
  const freedom = sumOf(window, 'scored') - sumOf(window, 'groups') - 2;
  if (correlation === undefined || freedom < 4) return undefined;
  const z = Math.atanh(Math.min(0.999999, Math.abs(correlation))) - 1.645 / Math.sqrt(freedom);
  return Math.max(0, Math.tanh(z));
}

/**
 * The share of the reward's variance that the prompt alone explains: the intraclass correlation, one-way random effects,
 * (MSB − MSW) / (MSB + (k − 1) MSW) (Shrout and Fleiss 1979). Undefined with fewer than two prompts or without variance.
 */
export function promptShare(window: readonly Figures[]): number | undefined {
  const groups = sumOf(window, 'groups');
  const scored = sumOf(window, 'scored');
  const freedom = groups - window.length;
  if (freedom < 1 || scored <= groups) return undefined;
  const between = sumOf(window, 'between') / freedom;
  const within = sumOf(window, 'yy') / (scored - groups);
  const size = scored / groups;
  const total = between + (size - 1) * within;
  return total < 1e-12 ? undefined : Math.max(0, (between - within) / total);
}

type Sums = 'scored' | 'groups' | 'xx' | 'xy' | 'yy' | 'between';
const sumOf = (window: readonly Figures[], name: Sums): number => window.reduce((sum, each) => sum + each[name], 0);

const meanOf = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;
