import type { Quantization } from '../src/nn/context.js';
import type { PeerDtype } from './peer.js';
import type { WorkName } from './work.js';

/** One row of the table: a work in a form of the policy's base or in a precision of the reward model's products, and what is aimed at. */
export interface Entry {
  readonly row: string;
  readonly work: Exclude<WorkName, 'ceiling'>;
  readonly quantization: Quantization;
  readonly recompute: boolean;
  /** The dtype of the peer that the ratio is taken against; the faster one where none is named. */
  readonly against?: PeerDtype;
  /** How many times the peer's rate, and which share of its peak memory at most, is aimed at. */
  readonly target?: number;
  readonly memoryTarget?: number;
  /** Parts of the work that get a row of their own, and what is aimed at there. */
  readonly parts?: Readonly<Record<string, number>>;
}

/** Names for `--only`. */
export const GROUPS = ['sft', 'rm', 'grpo', 'generate', 'start'] as const;
export type GroupName = (typeof GROUPS)[number];

type Plan = Omit<Entry, 'recompute'> & { readonly recompute?: boolean };

/** The forms that a user who wants speed would choose, beside float32 where it has a target of its own. */
const PLANS: Readonly<Record<GroupName, readonly Plan[]>> = {
  sft: [
    { row: 'sft', work: 'sft', quantization: 'int8', target: 8, memoryTarget: 0.6 },
    { row: 'sft-float32', work: 'sft', quantization: 'float32', against: 'float32', target: 4 },
  ],
  rm: [
    { row: 'rm', work: 'rm', quantization: 'float32', against: 'float32', target: 2 },
    { row: 'rm-int8', work: 'rm', quantization: 'int8', target: 1.5 },
    { row: 'rm-recompute', work: 'rm', quantization: 'float32', recompute: true, memoryTarget: 1 / 3 },
  ],
  grpo: [{ row: 'grpo', work: 'grpo', quantization: 'int8', target: 10, memoryTarget: 0.2, parts: { rollout: 12 } }],
  generate: [
    { row: 'generate-1', work: 'generate-1', quantization: 'int4', target: 8 },
    { row: 'generate-64', work: 'generate-64', quantization: 'int8', target: 6 },
  ],
  start: [],
};

/**
 * The rows of some groups.
 *
 * @param asked.quantization one form for all of them, in place of those of the plan
 */
export function entriesOf(
  groups: readonly GroupName[],
  asked: { readonly quantization?: Quantization | undefined; readonly recompute: boolean },
): Entry[] {
  const plans = groups.flatMap((name) => PLANS[name]).map((plan) => ({ recompute: asked.recompute, ...plan }));
  const { quantization } = asked;
  if (quantization === undefined) return plans;
  const firstOf = new Map(plans.map((plan) => [`${plan.work} ${plan.recompute}`, plan] as const).reverse());
  // The reward model has no base that is rounded beforehand: its rows stay as they are.
  return plans.flatMap((plan) => {
    if (plan.work === 'rm') return [plan];
    return firstOf.get(`${plan.work} ${plan.recompute}`) === plan ? [{ ...plan, quantization }] : [];
  });
}
