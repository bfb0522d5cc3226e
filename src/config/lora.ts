import { z } from 'zod';
import { key, refuse, type RefineContext } from './key.js';
import { count } from './training.js';

export const TARGET_MODULES = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const;
export type TargetModule = (typeof TARGET_MODULES)[number];

/** Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685); the update is scaled by alpha / r. */
export const loraSection = z
  .strictObject({
    r: key(count().default(16), 'Rank of the update.'),
    alpha: key(z.number().gt(0).default(32), 'Scale of the update: it is multiplied by alpha / r.'),
    dropout: key(
      z.number().min(0).lt(1).default(0.05),
      "Dropout on the adapter's input; off wherever log-probabilities are compared.",
    ),
    targetModules: key(
      z
        .array(z.enum(TARGET_MODULES))
        .min(1)
        .default([...TARGET_MODULES]),
      'Linear layers that get an adapter.',
    ),
  })
  .superRefine(({ targetModules }, context) => {
    refuseTwice(targetModules, context);
  });

/** The adapter of a reward model. What is left out depends on the rank or on the model: `classifierLora` fills it in. */
export const rmLoraSection = z
  .strictObject({
    r: key(count(0).default(0), 'Rank of a LoRA adapter; 0 makes no adapter: all weights learn.'),
    alpha: key(z.number().gt(0).optional(), 'Scale of the update: it is multiplied by alpha / r (default: 2 · r).'),
    dropout: key(z.number().min(0).lt(1).optional(), "Dropout on the adapter's input (default: 0.05)."),
    targetModules: key(
      z.array(z.string().min(1)).min(1).optional(),
      'Linear layers that get an adapter, by the last part of their names (default: all of the blocks).',
    ),
  })
  .superRefine((lora, context) => {
    refuseTwice(lora.targetModules ?? [], context);
    if (lora.r > 0) return;
    const given = (['alpha', 'dropout', 'targetModules'] as const).find((name) => lora[name] !== undefined);
    if (given !== undefined)
      refuse(context, [given], 'is given, but r is 0: there is no adapter', 'set r to a rank, such as 16');
  });

function refuseTwice(targetModules: readonly string[], context: RefineContext): void {
  const twice = targetModules.find((name, index) => targetModules.indexOf(name) !== index);
  if (twice !== undefined) refuse(context, ['targetModules'], `names ${twice} twice`, 'name each layer once');
}
