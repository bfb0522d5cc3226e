import type { AlarmsConfig } from '../../../config/alarms.js';

/** What the alarms look at: figures over the window, those that could not be measured left out. */
export interface Judged {
  /** Of reward and length within groups; what is there with 95 % confidence, without sign. */
  readonly lengthCorrelation?: number | undefined;
  readonly provenCorrelation?: number | undefined;
  /** Mean length in characters, and that of the first rollouts. */
  readonly length: number;
  readonly firstLength: number;
  /** Distinct-2 of a fixed amount of text, and that of the first rollouts. */
  readonly distinct?: number | undefined;
  readonly firstDistinct?: number | undefined;
  readonly selfSimilarity?: number | undefined;
  readonly copied: number;
  readonly zeroVariance?: number | undefined;
  readonly promptShare?: number | undefined;
  readonly beyondHuman?: number | undefined;
  readonly kl?: number | undefined;
  readonly entropy?: number | undefined;
  readonly firstEntropy?: number | undefined;
}

/** A figure that is past its limit. */
export interface Alarm {
  /** Stable name; the warning's code is `gaming.NAME`. */
  readonly name: string;
  /** How far past, 1 at the limit. */
  readonly severity: number;
  /** What is the case, what it means, what to do. */
  readonly message: string;
}

/** Every figure that is past its limit, in plain words. */
export function judge(figures: Judged, limits: AlarmsConfig): Alarm[] {
  return RULES.flatMap((rule) => {
    const alarm = rule(figures, limits);
    return alarm !== undefined && alarm.severity > 1 ? [alarm] : [];
  });
}

type Rule = (figures: Judged, limits: AlarmsConfig) => Alarm | undefined;

const lengthCorrelation: Rule = ({ lengthCorrelation: value, provenCorrelation: proven }, limits) =>
  value === undefined || proven === undefined || limits.lengthCorrelation === 1
    ? undefined
    : {
        name: 'length-correlation',
        severity: over(proven, limits.lengthCorrelation),
        message:
          `${value > 0 ? 'Longer' : 'Shorter'} completions of the same prompt are rewarded more: reward and length correlate with ` +
          `${show(value)} (proven beyond ${show(limits.lengthCorrelation)}). The policy can raise this reward by writing ` +
          `${value > 0 ? 'more' : 'less'}. Take length out of it: grpo.rewards.model.lengthControl=residual, or a length band.`,
      };

const lengthRatio: Rule = ({ length, firstLength }, limits) =>
  firstLength === 0
    ? undefined
    : {
        name: 'length-drift',
        severity: over(Math.max(length / firstLength, firstLength / Math.max(length, 1e-9)), limits.lengthRatio),
        message:
          `Completions have become ${length > firstLength ? 'longer' : 'shorter'}: ${show(length)} characters on average, ` +
          `${show(firstLength)} at the start. Read some in rollouts.jsonl; if they are padded or cut short, control the ` +
          `length of the reward (grpo.rewards.model.lengthControl=residual) or raise grpo.beta.`,
      };

const distinct: Rule = ({ distinct: value, firstDistinct: first }, limits) =>
  value === undefined || first === undefined
    ? undefined
    : {
        name: 'variety',
        severity: under(value, limits.distinct * first),
        message:
          `Variety is lost: distinct-2 of the same amount of text is ${show(value)}, ${show(first)} at the start. The policy ` +
          `repeats what was rewarded. Stop at an earlier checkpoint, raise grpo.beta or grpo.temperature, or weigh grpo.rewards.repetition.`,
      };

const selfSimilarity: Rule = ({ selfSimilarity: value }, limits) =>
  value === undefined || limits.selfSimilarity === 1
    ? undefined
    : {
        name: 'self-similarity',
        severity: over(value, limits.selfSimilarity),
        message:
          `Completions resemble one another: two of them share ${percent(value)} of their 3-grams on average (limit ` +
          `${percent(limits.selfSimilarity)}). The policy has found one text that pays. Raise grpo.beta or grpo.temperature, or stop earlier.`,
      };

const copied: Rule = ({ copied: value }, limits) =>
  limits.copied === 1
    ? undefined
    : {
        name: 'copied',
        severity: over(value, limits.copied),
        message:
          `${percent(value)} of what is written stands in the training jokes, in stretches of 8 characters and more (limit ` +
          `${percent(limits.copied)}). The reward pays for what it was trained on. Weigh grpo.rewards.novelty, or fine-tune for fewer epochs.`,
      };

const zeroVariance: Rule = ({ zeroVariance: value }, limits) =>
  value === undefined || limits.zeroVariance === 1
    ? undefined
    : {
        name: 'no-spread',
        severity: over(value, limits.zeroVariance),
        message:
          `${percent(value)} of the completions are in a group whose rewards are all equal, and teach nothing. The reward is ` +
          `too coarse or reached its ceiling: add a reward with degrees, raise grpo.temperature, or take harder prompts.`,
      };

const promptShare: Rule = ({ promptShare: value }, limits) =>
  value === undefined || limits.promptShare === 1
    ? undefined
    : {
        name: 'prompt-share',
        severity: over(value, limits.promptShare),
        message:
          `The prompt alone explains ${percent(value)} of the reward's variance: the reward hardly reads the completion. What ` +
          `is left to learn from is mostly noise. Train the reward model with jokes and non-jokes to the same prompts.`,
      };

const beyondHuman: Rule = ({ beyondHuman: value }, limits) =>
  value === undefined || limits.beyondHuman === 1
    ? undefined
    : {
        name: 'beyond-human',
        severity: over(value, limits.beyondHuman),
        message:
          `The reward model rates ${percent(value)} of the completions above 99 % of held-out jokes that people wrote. It has ` +
          `seen no such texts, and its confidence there is worth nothing. Stop at an earlier checkpoint, or raise grpo.beta.`,
      };

const kl: Rule = ({ kl: value }, limits) =>
  value === undefined || limits.kl === 0
    ? undefined
    : {
        name: 'kl',
        severity: over(value, limits.kl),
        message:
          `The policy is far from where it started: KL ${show(value)} nats a token (limit ${show(limits.kl)}). Lower ` +
          `grpo.learningRate, raise grpo.beta, or take an earlier checkpoint.`,
      };

const entropy: Rule = ({ entropy: value, firstEntropy: first }, limits) =>
  value === undefined || first === undefined
    ? undefined
    : {
        name: 'entropy',
        severity: under(value, limits.entropy * first),
        message:
          `The policy hardly varies any more: its entropy is ${show(value)} nats a token, ${show(first)} at the start. What it ` +
          `does not try it cannot learn. Lower grpo.learningRate, or raise grpo.beta or grpo.epsilonHigh.`,
      };

const RULES: readonly Rule[] = [
  lengthCorrelation,
  lengthRatio,
  distinct,
  selfSimilarity,
  copied,
  zeroVariance,
  promptShare,
  beyondHuman,
  kl,
  entropy,
];

const over = (value: number, limit: number): number => (limit === 0 ? (value > 0 ? Infinity : 0) : value / limit);
const under = (value: number, least: number): number => (least === 0 ? 0 : value === 0 ? Infinity : least / value);
const show = (value: number): string => String(Number(value.toPrecision(2)));
const percent = (value: number): string => `${Math.round(100 * value)} %`;
