import { z } from 'zod';
import { key, refuse } from './key.js';
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
  .superRefine((lora, context) => {
    const twice = lora.targetModules.find((name, index) => lora.targetModules.indexOf(name) !== index);
    if (twice !== undefined) refuse(context, ['targetModules'], `names ${twice} twice`, 'name each layer once');
  });
