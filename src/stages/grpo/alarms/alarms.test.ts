import { describe, expect, it } from 'vitest';
import { alarmsSection } from '../../../config/alarms.js';
import { stream } from '../../../random.js';
import { CopyIndex } from '../../../text/copy-index.js';
import {
  lengthCorrelation,
  measure,
  promptShare,
  provenCorrelation,
  rarefiedDistinct,
  type Figures,
  type Rewarded,
} from './figures.js';
import { judge, type Judged } from './judge.js';
import { Watch } from './watch.js';

const limits = alarmsSection.parse({});
const training = new CopyIndex(['老板说年轻人不要怕加班，因为加班的时候不用回家洗碗。']);
const measuring = { groupSize: 8, training, beyondHuman: null, zeroVariance: 0 };
const random = stream(3, 'alarms');
const word = (length: number, alphabet = 2000): string =>
  Array.from({ length }, () => String.fromCodePoint(0x4e00 + Math.floor(alphabet * random.uniform()))).join('');

/** 8 prompts with 8 completions each. */
const rollout = (make: (prompt: number) => Rewarded): Figures =>
  measure(
    Array.from({ length: 64 }, (_, i) => make(Math.floor(i / 8))),
    measuring,
  );
const honest = (length = 30): Figures =>
  rollout(() => ({ completion: word(length - 5 + Math.floor(10 * random.uniform())), reward: random.normal() }));

describe('figures', () => {
  it('correlate reward and length within prompts only', () => {
    const figures = rollout((prompt) => ({
      completion: word(10 + 5 * prompt),
      reward: prompt + random.normal() / 100,
    }));
    expect(lengthCorrelation([figures])).toBeUndefined();
    const paid = rollout(() => {
      const completion = word(20 + Math.floor(20 * random.uniform()));
      return { completion, reward: completion.length / 10 };
    });
    expect(lengthCorrelation([paid])).toBeCloseTo(1, 6);
    expect(provenCorrelation([paid])).toBeGreaterThan(0.99);
    expect(Math.abs(lengthCorrelation(Array.from({ length: 8 }, () => honest()))!)).toBeLessThan(0.2);
  });

  it('prove nothing with few completions', () => {
    const texts = [1, 2, 3, 4].map((n) => ({ completion: word(n), reward: n }));
    const few = measure(texts, { ...measuring, groupSize: 4 });
    expect(lengthCorrelation([few])).toBeCloseTo(1, 6);
    expect(provenCorrelation([few])).toBeUndefined();
  });

  it('find how much of the reward hangs on the prompt', () => {
    const bound = rollout((prompt) => ({ completion: word(20), reward: 5 * prompt + random.normal() / 10 }));
    expect(promptShare([bound])).toBeGreaterThan(0.99);
    expect(promptShare([honest(), honest(), honest(), honest()])).toBeLessThan(0.15);
  });

  it('tell distinct-2 of an amount of text, which more text does not lower', () => {
    const short = rollout(() => ({ completion: word(20, 60), reward: 0 }));
    const long = rollout(() => ({ completion: word(80, 60), reward: 0 }));
    expect(rarefiedDistinct(long, 500)).toBeCloseTo(rarefiedDistinct(short, 500)!, 1);
    const stuck = rollout(() => ({ completion: word(20, 6), reward: 0 }));
    expect(rarefiedDistinct(stuck, 500)).toBeLessThan(0.2 * rarefiedDistinct(short, 500)!);
    expect(rarefiedDistinct(short, 5000)).toBeUndefined();
  });

  it('are the mean over draws, for distinct-2', () => {
    const texts = Array.from({ length: 8 }, () => ({ completion: word(6, 4), reward: 0 }));
    const bigrams = texts.flatMap(({ completion }) => Array.from({ length: 5 }, (_, i) => completion.slice(i, i + 2)));
    let sum = 0;
    for (let draw = 0; draw < 4000; draw++) {
      const order = stream(draw, 'draw').shuffle(bigrams.length);
      sum += new Set(Array.from(order.subarray(0, 10), (i) => bigrams[i])).size / 10;
    }
    expect(rarefiedDistinct(measure(texts, measuring), 10)).toBeCloseTo(sum / 4000, 2);
  });

  it('see copies and what had no reward', () => {
    const figures = rollout(() => ({ completion: '加班的时候不用回家洗碗', reward: null }));
    expect(figures).toMatchObject({ copied: 1, selfSimilarity: 1, scored: 0, groups: 0 });
  });

  it('take empty texts', () => {
    expect(rollout(() => ({ completion: '', reward: 0 }))).toMatchObject({ length: 0, copied: 0, bigrams: [] });
  });
});

const healthy: Judged = { length: 30, firstLength: 30, copied: 0 };

describe('judge', () => {
  it.each([
    ['length-correlation', { lengthCorrelation: -0.8, provenCorrelation: 0.7 }, /Shorter completions.*-0\.8/],
    ['length-drift', { length: 50 }, /longer: 50 characters on average, 30/],
    ['length-drift', { length: 12 }, /shorter: 12/],
    ['variety', { distinct: 0.5, firstDistinct: 0.9 }, /distinct-2 of the same amount of text is 0\.5, 0\.9/],
    ['self-similarity', { selfSimilarity: 0.4 }, /40 %/],
    ['copied', { copied: 0.6 }, /60 % of what is written/],
    ['no-spread', { zeroVariance: 0.75 }, /75 %.*teach nothing/],
    ['prompt-share', { promptShare: 0.97 }, /97 % of the reward's variance/],
    ['beyond-human', { beyondHuman: 0.5 }, /50 % of the completions above 99 % of held-out jokes/],
    ['kl', { kl: 0.4 }, /KL 0\.4 nats a token/],
    ['entropy', { entropy: 1, firstEntropy: 4 }, /entropy is 1 nats a token, 4/],
  ])('%s', (name, figures, message) => {
    const alarms = judge({ ...healthy, ...figures }, limits);
    expect(alarms.map((alarm) => alarm.name)).toEqual([name]);
    expect(alarms[0]!.message).toMatch(message);
    expect(alarms[0]!.severity).toBeGreaterThan(1);
  });

  it('is silent where all is well, and where an alarm is off', () => {
    expect(judge(healthy, limits)).toEqual([]);
    const bad = { ...healthy, lengthCorrelation: 1, provenCorrelation: 0.99, zeroVariance: 1, copied: 1, kl: 9 };
    const off = alarmsSection.parse({ lengthCorrelation: 1, zeroVariance: 1, copied: 1, kl: 0 });
    expect(judge(bad, off)).toEqual([]);
  });
});

describe('watch', () => {
  it('warns once, and again only when it is worse', () => {
    const watch = new Watch({ ...limits, window: 2 });
    const spoken = [30, 30, 50, 50, 50, 90, 90].map((length) =>
      watch.rollout(honest(length)).alarms.map(({ name }) => name),
    );
    expect(spoken).toEqual([[], [], [], ['length-drift'], [], ['length-drift'], ['length-drift']]);
  });

  it('averages KL and entropy over the steps of its window', () => {
    const watch = new Watch({ ...limits, window: 2 });
    watch.rollout(honest());
    watch.step({ kl: 0.001, entropy: 4 });
    watch.rollout(honest());
    watch.step({ kl: 0.5, entropy: 4 });
    watch.step({ entropy: Number.NaN });
    expect(watch.rollout(honest()).alarms.map(({ name }) => name)).toEqual(['kl']);
    for (let i = 0; i < 2; i++) {
      watch.step({ kl: 0.001, entropy: 1 });
      watch.rollout(honest());
    }
    watch.step({ kl: 0.001, entropy: 1 });
    expect(watch.state.told).toHaveProperty('entropy');
  });

  it('goes on from its state as if nothing had happened', () => {
    const figures = [30, 30, 40, 55, 55, 60].map((length) => honest(length));
    const whole = new Watch({ ...limits, window: 2 });
    const heard = figures.map((each) => whole.rollout(each));
    let broken = new Watch({ ...limits, window: 2 });
    const again = figures.map((each) => {
      const next = new Watch({ ...limits, window: 2 });
      next.state = JSON.parse(JSON.stringify(broken.state)) as typeof broken.state;
      broken = next;
      return broken.rollout(each);
    });
    expect(again).toEqual(heard);
  });
});
