import { z } from 'zod';
import { key } from './key.js';
import { count, share } from './training.js';

const limit = (preset: number, help: string) => key(z.number().min(0).default(preset), help);
const part = (preset: number, help: string) => key(share().default(preset), help);

/** When a run warns that its reward may be gamed. Every figure is over the last `window` rollouts. */
export const alarmsSection = z.strictObject({
  window: key(
    count().default(4),
    'Rollouts that every figure is taken over; the first as many are what later ones are compared with.',
  ),
  lengthCorrelation: part(0.5, "Correlation of reward and length among a prompt's completions, either sign; 1: off."),
  lengthRatio: key(
    z.number().gt(1).default(1.4),
    "How many times the first window's mean length, or a fraction of it as small.",
  ),
  distinct: part(0.8, "Share of the first window's distinct-2 that must be left, length aside; 0: off."),
  selfSimilarity: part(0.2, "Mean overlap of two completions' 3-grams; 1: off."),
  copied: part(0.3, 'Share of characters in a stretch of 8 from the training jokes; 1: off.'),
  zeroVariance: part(0.5, 'Share of completions whose group has one reward alone; 1: off.'),
  promptShare: part(0.9, 'Share of the variance of the reward that the prompt alone explains; 1: off.'),
  kl: limit(0.15, 'KL to the reference, nats a token.'),
  entropy: part(0.6, "Share of the first window's entropy that must be left; 0: off."),
  beyondHuman: part(0.25, 'Share of completions that the reward model rates above 99 % of held-out jokes; 1: off.'),
});
export type AlarmsConfig = z.output<typeof alarmsSection>;
