import { stat } from 'node:fs/promises';
import path from 'node:path';
import type { Runtime } from '../runtime/runtime.js';
import { mergeAndCompare } from './merge-report.js';

/**
 * The folder of a model with its adapter merged in and compared with the two (see `mergeAndCompare`). A run merges into its
 * own folder, so no merge outlives what it was made from; one that is there is not made again.
 *
 * @param request.dtype that of the model's files, or float32, the default
 */
export async function mergedPolicy(
  runtime: Runtime,
  {
    model,
    adapter,
    out,
    dtype = 'float32',
  }: { model: string; adapter: string; out: string; dtype?: 'keep' | 'float32' },
): Promise<string> {
  const made = await stat(path.join(out, 'merge.json')).catch(() => undefined);
  if (made === undefined) await mergeAndCompare(runtime, { model, adapter, out, dtype });
  return out;
}
