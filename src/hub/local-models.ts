import type { StageContext } from '../runs/events.js';
import { localModel } from './local-model.js';

/** The keys under which a stage's configuration names models and adapters. */
const KEYS = ['model', 'adapter', 'rm'] as const;

/** A configuration with the folders of its models in place of their names on a hub, which are fetched where needed. */
export async function withLocalModels<Config extends { readonly model?: string | undefined }>(
  config: Config,
  context: StageContext,
): Promise<Config> {
  const local: Config & Partial<Record<(typeof KEYS)[number], unknown>> = { ...config };
  for (const key of KEYS) {
    const model = local[key];
    if (typeof model === 'string') Object.assign(local, { [key]: await localModel(model, context) });
  }
  return local;
}
