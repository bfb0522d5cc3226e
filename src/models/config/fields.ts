import { z } from 'zod';
import { UserError } from '../../errors.js';

/** Activations that Hugging Face configs name and this project computes; `gelu` is the exact one, by the error function. */
export const activations = ['gelu', 'relu', 'silu', 'tanh'] as const;
export type Activation = (typeof activations)[number];

/** Dtypes that weights are published in. */
export const weightDtypes = ['float32', 'float16', 'bfloat16'] as const;
export type WeightDtype = (typeof weightDtypes)[number];

export const count = z.int().positive();
export const natural = z.int().nonnegative();
/** Counts of things of which a wrong file could make this program allocate one each. */
export const listable = count.max(10_000);
export const tokenId = natural.nullish().transform((id) => id ?? null);
export const probability = z.number().min(0).lt(1);
export const activation = z.enum(activations);
export const weightDtype = z.preprocess(
  (value) => (typeof value === 'string' ? value.replace(/^torch\./, '') : value),
  z.enum(weightDtypes),
);

/** One EOS id, a list of them, or none, as a list. */
export const tokenIds = z
  .union([natural, z.array(natural)])
  .nullish()
  .transform((ids) => (ids == null ? [] : [...new Set([ids].flat())]));

/** A field that takes `value` when it is absent or null, as Hugging Face reads a config. */
export const orDefault = <S extends z.ZodType>(schema: S, value: z.output<S>) =>
  schema.nullish().transform((given): z.output<S> => given ?? value);

/**
 * Parses the JSON of a file that a person may have written.
 *
 * @throws UserError with the first fault: its key, what is wrong, and the value found
 */
export function parseJsonFields<S extends z.ZodType>(schema: S, raw: unknown, where: string): z.output<S> {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const path = issue?.path ?? [];
  const found = JSON.stringify(path.reduce<unknown>((value, key) => memberOf(value, key), raw)) as string | undefined;
  throw new UserError({
    code: 'model.invalid-config',
    message: `${path.length > 0 ? `\`${path.join('.')}\`` : 'The top level'} is ${found?.slice(0, 80) ?? 'missing'}: ${issue?.message ?? 'not understood'}.`,
    where,
    fix: 'Correct the file, or copy it again from where the model was published.',
  });
}

const memberOf = (value: unknown, key: PropertyKey): unknown =>
  typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[key] : undefined;

/** A UserError for what a config asks for and this project does not compute. */
export const unsupported = (what: string, where: string, fix: string): UserError =>
  new UserError({ code: 'model.unsupported', message: `${what} is not supported.`, where, fix });

/** A UserError for two fields of a config that contradict each other. */
export const contradiction = (message: string, where: string): UserError =>
  new UserError({
    code: 'model.invalid-config',
    message,
    where,
    fix: 'Correct the file, or copy it again from where the model was published.',
  });

/** How many labels a classifier has, and what they are called. */
export const labelFields = {
  num_labels: listable.nullish(),
  id2label: z.record(z.string().regex(/^\d+$/), z.string()).nullish(),
};

/** Labels by index: of `id2label`, else LABEL_0 … as transformers names them. */
export function labelsOf(
  raw: { num_labels?: number | null | undefined; id2label?: Readonly<Record<string, string>> | null | undefined },
  where: string,
): readonly string[] {
  if (raw.id2label == null) return Array.from({ length: raw.num_labels ?? 2 }, (_, i) => `LABEL_${i}`);
  const names = raw.id2label;
  if (Object.keys(names).length === 0) throw contradiction('`id2label` is empty.', where);
  return Object.keys(names).map((_, i) => {
    const name = names[String(i)];
    if (name === undefined) throw contradiction(`\`id2label\` has no label ${i}.`, where);
    return name;
  });
}

export const labelsToHuggingFace = (labels: readonly string[]): Record<string, unknown> => ({
  id2label: Object.fromEntries(labels.map((label, i) => [String(i), label])),
  label2id: Object.fromEntries(labels.map((label, i) => [label, i])),
});
