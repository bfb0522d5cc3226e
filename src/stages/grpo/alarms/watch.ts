import { z } from 'zod';
import type { AlarmsConfig } from '../../../config/alarms.js';
import type { Metrics } from '../../../training/loop.js';
import {
  bigramBudget,
  figuresSchema,
  lengthCorrelation,
  promptShare,
  provenCorrelation,
  rarefiedDistinct,
  type Figures,
} from './figures.js';
import { judge, type Alarm, type Judged } from './judge.js';

/** Sums over the steps that learned from a rollout. */
const stepsSchema = z.strictObject({ kl: z.number(), entropy: z.number(), steps: z.int() });

/** What a run carries of its alarms from one step to the next. */
export const watchSchema = z.strictObject({
  rollouts: z.int(),
  /** The first of them, as many as a window holds: what later ones are compared with. */
  first: z.array(figuresSchema),
  firstSteps: stepsSchema,
  window: z.array(figuresSchema),
  steps: z.array(stepsSchema),
  /** Name → how far past its limit an alarm was when it last spoke. */
  told: z.record(z.string(), z.number()),
});
export type WatchState = z.infer<typeof watchSchema>;

/** An alarm speaks again when it is this much further past its limit. */
const WORSE = 1.25;

/** Watches the rollouts of a run for signs that the reward is gamed. */
export class Watch {
  state: WatchState = {
    rollouts: 0,
    first: [],
    firstSteps: { kl: 0, entropy: 0, steps: 0 },
    window: [],
    steps: [],
    told: {},
  };

  constructor(private readonly limits: AlarmsConfig) {}

  /** A step that learned from the newest rollout. */
  step({ kl, entropy }: Metrics): void {
    const { rollouts, steps, firstSteps } = this.state;
    const current = steps.at(-1);
    if (current === undefined || entropy === undefined || !Number.isFinite(entropy)) return;
    const isFirst = rollouts <= this.limits.window;
    for (const sums of isFirst ? [current, firstSteps] : [current]) {
      sums.kl += Number.isFinite(kl) ? kl! : 0;
      sums.entropy += entropy;
      sums.steps += 1;
    }
  }

  /** A new rollout: the figures to log, and the alarms that have something new to say. */
  rollout(figures: Figures): { metrics: Metrics; alarms: Alarm[] } {
    const { state, limits } = this;
    state.rollouts += 1;
    if (state.rollouts <= limits.window) state.first.push(figures);
    state.window = [...state.window, figures].slice(-limits.window);
    const judged = judgedOf(state);
    state.steps = [...state.steps, { kl: 0, entropy: 0, steps: 0 }].slice(-limits.window);
    const alarms = judge(judged, limits).filter(({ name, severity }) => severity >= WORSE * (state.told[name] ?? 0));
    for (const { name, severity } of alarms) state.told[name] = Math.min(severity, Number.MAX_VALUE);
    return { metrics: metricsOf(judged), alarms };
  }
}

function judgedOf({ first, firstSteps, window, steps }: WatchState): Judged {
  const budget = Math.min(...first.map((each) => bigramBudget(each)));
  const count = steps.reduce((sum, each) => sum + each.steps, 0);
  const distinctOf = (rollouts: readonly Figures[]) => meanOf(rollouts.map((each) => rarefiedDistinct(each, budget)));
  return {
    lengthCorrelation: lengthCorrelation(window),
    provenCorrelation: provenCorrelation(window),
    length: meanOf(window.map(({ length }) => length))!,
    firstLength: meanOf(first.map(({ length }) => length))!,
    distinct: distinctOf(window),
    firstDistinct: distinctOf(first),
    selfSimilarity: meanOf(window.map(({ selfSimilarity }) => selfSimilarity)),
    copied: meanOf(window.map(({ copied }) => copied))!,
    zeroVariance: meanOf(window.map(({ zeroVariance }) => zeroVariance)),
    promptShare: promptShare(window),
    beyondHuman: meanOf(window.map(({ beyondHuman }) => beyondHuman)),
    ...(count === 0
      ? {}
      : {
          kl: steps.reduce((sum, each) => sum + each.kl, 0) / count,
          entropy: steps.reduce((sum, each) => sum + each.entropy, 0) / count,
          firstEntropy: firstSteps.entropy / firstSteps.steps,
        }),
  };
}

/** The mean of the values that are there. */
function meanOf(values: readonly (number | null | undefined)[]): number | undefined {
  const known = values.filter((value) => typeof value === 'number');
  return known.length === 0 ? undefined : known.reduce((a, b) => a + b, 0) / known.length;
}

function metricsOf(judged: Judged): Metrics {
  const named = {
    'gaming/length_correlation': judged.lengthCorrelation,
    'gaming/length_ratio': judged.firstLength === 0 ? undefined : judged.length / judged.firstLength,
    'gaming/distinct_2': judged.distinct,
    'gaming/self_similarity': judged.selfSimilarity,
    'gaming/copied': judged.copied,
    'gaming/prompt_share': judged.promptShare,
    'gaming/beyond_human': judged.beyondHuman,
  };
  return Object.fromEntries(
    Object.entries(named).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}
