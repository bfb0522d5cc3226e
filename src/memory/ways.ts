import type { MemoryPlan } from './plan.js';

/** Settings under which a stage takes less memory. */
export interface Way {
  /** As `--set` takes them. */
  readonly settings: readonly string[];
  readonly bytes: number;
}

/** What changes of a configuration would give, those that take less than it does now, the most first to be kept. */
export function waysOf<Config>(
  now: Config,
  planFor: (config: Config) => MemoryPlan,
  changes: readonly { readonly settings: readonly string[]; readonly config: Config }[],
): Way[] {
  const before = planFor(now).bytes;
  return changes
    .map(({ settings, config }) => ({ settings, bytes: planFor(config).bytes }))
    .filter(({ bytes }) => bytes < 0.98 * before);
}

/** Smaller batches that make up the same step: each a divisor of the batch, with how many accumulate. */
export const divisions = (batch: number): { readonly batch: number; readonly accumulated: number }[] =>
  [2, 4, 8, 16, 32]
    .filter((parts) => batch % parts === 0)
    .map((parts) => ({ batch: batch / parts, accumulated: parts }));

/** The forms of a frozen base that take less than the one it has, whose smallest is NF4. */
export const roundedForms = <Config extends { readonly quantization: string }>(
  given: Config,
): { readonly settings: string[]; readonly config: Config }[] =>
  given.quantization === 'nf4'
    ? []
    : (['int8', 'nf4'] as const)
        .filter((form) => form !== given.quantization)
        .map((form) => ({ settings: [`quantization=${form}`], config: { ...given, quantization: form } }));

/** What of a stage with an adapter on a frozen base its batches depend on. */
interface AdapterSection {
  readonly batchSize: number;
  readonly gradientAccumulationSteps: number;
  readonly maxLength: number;
  readonly recompute: boolean;
}

/** Changes of such a stage: the same steps with blocks computed again, or of smaller batches, a rounded base, shorter texts. */
export function adapterChanges<
  Stage extends string,
  Config extends { readonly quantization: string } & Readonly<Record<Stage, AdapterSection>>,
>(stage: Stage, given: Config): { readonly settings: readonly string[]; readonly config: Config }[] {
  const section = given[stage];
  const change = (values: Partial<AdapterSection>): { settings: string[]; config: Config } => ({
    settings: Object.entries(values).map(([name, value]) => `${stage}.${name}=${value}`),
    config: { ...given, [stage]: { ...section, ...values } },
  });
  const smaller = divisions(section.batchSize).map(({ batch, accumulated }) => {
    const gradientAccumulationSteps = section.gradientAccumulationSteps * accumulated;
    return change({ batchSize: batch, gradientAccumulationSteps });
  });
  const shorter = change({ maxLength: Math.ceil(section.maxLength / 2) });
  return [change({ recompute: true }), ...smaller, ...roundedForms(given), shorter];
}
