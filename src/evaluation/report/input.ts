import { z } from 'zod';
import { UserError } from '../../errors.js';

const share = z.number().min(0).max(1);

const Point = z.object({ step: z.number(), value: z.number() });
const Series = z.object({ name: z.string(), points: z.array(Point) });

const Chart = z.object({
  title: z.string(),
  /** What the curve means or what to look for; one sentence. */
  note: z.string().optional(),
  series: z.array(Series),
});

const Stage = z.object({
  name: z.string(),
  /** What the stage did; one or two sentences. */
  summary: z.string().optional(),
  seconds: z.number().nonnegative().optional(),
  /** What warned of a reward that is gamed, and after which step. */
  alarms: z.array(z.object({ step: z.number(), name: z.string(), message: z.string() })).default([]),
  charts: z.array(Chart).default([]),
});

export const Interval = z.object({
  estimate: z.number(),
  low: z.number(),
  high: z.number(),
  level: z.number().gt(0).lt(1),
  rows: z.number().int().nonnegative(),
});

const Count = z.number().int().nonnegative();

export const Classification = z.object({
  rows: Count,
  accuracy: share,
  precision: share,
  recall: share,
  f1: share,
  rocAuc: share.nullable(),
  averagePrecision: share.nullable(),
  logLoss: z.number(),
  brier: z.number(),
  ece: share,
  ecePositive: share,
  /** Rows are the truth, columns the prediction. */
  confusion: z.tuple([z.tuple([Count, Count]), z.tuple([Count, Count])]),
  reliability: z.array(
    z.object({
      low: z.number(),
      high: z.number(),
      count: Count,
      meanScore: z.number().nullable(),
      fractionPositive: z.number().nullable(),
    }),
  ),
});

export const RewardModel = z.object({
  /** Where the figures come from, for example `validation`. */
  evaluatedOn: z.string(),
  metrics: Classification,
  /** Figures of a test set that was looked at once, after training. */
  test: Classification.nullish(),
  baselines: z.array(z.object({ name: z.string(), description: z.string(), metrics: Classification })).default([]),
  /** Of `addedValue`: what the model adds given the prompt and the length. */
  added: z.object({ aucWithout: share, aucWith: share, difference: Interval }).nullish(),
});

const Reward = z.object({
  /** Mean reward of each model on the same unseen prompts, in order of training. */
  models: z.array(z.object({ name: z.string(), mean: Interval })).min(1),
  /** Names of the two models that `difference` and `length` compare. */
  before: z.string(),
  after: z.string(),
  /** Paired difference, after − before. */
  difference: Interval,
  /** Of `splitGainByLength`. */
  length: z
    .object({
      slope: z.number(),
      r2: z.number(),
      meanLengthBefore: z.number(),
      meanLengthAfter: z.number(),
      gain: Interval,
      explainedByLength: z.number(),
      rest: Interval,
      share: z.number().nullable(),
    })
    .nullish(),
  /** One point a text, for the picture of reward against length. */
  samples: z
    .array(z.object({ model: z.string(), points: z.array(z.object({ length: z.number(), reward: z.number() })) }))
    .default([]),
});

/** Figures of one model's generations; those that were not measured are left out. */
const Generator = z.object({
  name: z.string(),
  texts: Count.optional(),
  eosShare: share.nullish(),
  meanLength: z.number().nonnegative().nullish(),
  distinct1: share.nullish(),
  distinct2: share.nullish(),
  selfSimilarity: share.nullish(),
  bothWordsShare: share.nullish(),
  copiedShare: share.nullish(),
  garbageShare: share.nullish(),
});

const Generation = z.object({
  prompt: z.string(),
  texts: z.array(
    z.object({
      model: z.string(),
      text: z.string(),
      reward: z.number().nullish(),
      /** `length`: cut off by the limit, no EOS. */
      finishReason: z.enum(['stop', 'length']).optional(),
    }),
  ),
});

/** Everything a report shows. A part that is left out is left out of the report. */
export const ReportInput = z.object({
  title: z.string(),
  subtitle: z.string().optional(),
  /** ISO 8601. */
  createdAt: z.string().optional(),
  /** What to expect of a model of this size, in plain words. */
  expectation: z.string().optional(),
  stages: z.array(Stage).default([]),
  rewardModel: RewardModel.optional(),
  reward: Reward.optional(),
  generators: z.array(Generator).default([]),
  generations: z.array(Generation).default([]),
  notes: z.array(z.string()).default([]),
  /** Section → key → value, as in the resolved config. */
  settings: z.record(z.string(), z.record(z.string(), z.unknown())).default({}),
  versions: z.record(z.string(), z.string()).default({}),
  /** Shell commands that repeat the run. */
  commands: z.array(z.string()).default([]),
});

/** What a caller gives. */
export type ReportInput = z.input<typeof ReportInput>;
/** The same with every default filled in. */
export type Report = z.output<typeof ReportInput>;
export type ReportChart = z.output<typeof Chart>;
export type ReportSeries = z.output<typeof Series>;
export type ReportPoint = z.output<typeof Point>;
export type ReportInterval = z.output<typeof Interval>;
export type ReportRewardModel = z.output<typeof RewardModel>;
export type ReportReward = z.output<typeof Reward>;
export type ReportGenerator = z.output<typeof Generator>;

/** @throws UserError that names the first wrong field */
export function parseReportInput(input: ReportInput): Report {
  const parsed = ReportInput.safeParse(input);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new UserError({
    code: 'report.invalid-input',
    message: `the report's input is wrong: ${issue.message}`,
    where: issue.path.length === 0 ? 'the whole input' : issue.path.join('.'),
  });
}
