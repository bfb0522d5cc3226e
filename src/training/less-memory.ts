import { UserError } from '../errors.js';
import type { StageContext } from '../runs/events.js';
import { readManifest, writeManifest } from '../runs/manifest.js';
import { halvedBatches } from '../runs/smaller-batches.js';

/**
 * Runs a stage, and where memory runs out goes on from its last checkpoint with half as many samples at once and twice
 * as many accumulated: each optimizer step learns from the same samples. The change is recorded in the manifest, so a
 * later `--resume` keeps it, and told as a warning.
 *
 * @param batchSize samples that go through the model at once, as configured
 * @throws UserError `machine.memory` when there is no room even for one at a time, or before a run began
 */
export async function withLessMemory<Config extends { readonly out: string; readonly resume: boolean }>(
  stage: (config: Config, context: StageContext) => Promise<string>,
  config: Config,
  context: StageContext,
  batchSize: number,
): Promise<string> {
  let current = config;
  for (;;) {
    try {
      return await stage(current, context);
    } catch (error) {
      if (!isShortOfMemory(error) || context.replay === true) throw error;
      const message = await halve(config.out, batchSize);
      if (message === undefined) throw error;
      context.onEvent({ type: 'warning', code: 'memory.smaller-batches', message });
      current = { ...config, resume: true };
    }
  }
}

const isShortOfMemory = (error: unknown): boolean =>
  (error instanceof UserError && error.code === 'machine.memory') ||
  (error instanceof RangeError && /allocation failed/i.test(error.message));

/** Halves the micro-batch of the run in a folder; says so, or gives undefined where nothing is left to halve. */
async function halve(out: string, batchSize: number): Promise<string | undefined> {
  const manifest = await readManifest(out);
  const halved = manifest === undefined ? undefined : halvedBatches(manifest, batchSize, 'Memory ran out');
  if (halved !== undefined) await writeManifest(out, halved.manifest);
  return halved?.intervention.message;
}
